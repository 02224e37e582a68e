"""Thresholds: what the numbers become when |d| and q are asked for together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.build import RETENTION
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.circuits.specificity import n_made, of_family
from scircuit.errors import ScircuitError

ABS_D = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
MAX_Q = (0.001, 0.01, 0.05)
COLUMNS = ["kind", "cohens_d", "mean_delta", "p_value", "n_cells", "n_pos", "n_neg", "n_nonzero"]
"""What is read of `effects`."""


def threshold_sweep(
    effects: pd.DataFrame,
    tests: pd.DataFrame,
    abs_d: Sequence[float] = ABS_D,
    max_q: Sequence[float] = MAX_Q,
    rule: EdgeRule = DEFAULT,
    retention: float = RETENTION,
) -> Result:
    """Edges and their sign balance over a grid of thresholds, from the trace (edges alone are already cut).

    The grid is of `abs_d` and `max_q`, the rule's other thresholds hold throughout; its smallest and largest shares are
    over cells of at least 30 edges. `retention` is the largest p the trace kept. Table: one row per (min_abs_d, max_q):
    `n_edges, n_random_edges, random_per_edge` (random edges per direction over edges), `supporting_share, mean_abs_d`.
    """
    if max(max_q) > retention:
        raise ScircuitError(
            f"max_q {max(max_q)} lies above the retention level {retention} of the trace; "
            "leave it out or trace with a higher level."
        )
    families = {
        name: _family(effects[of_family(effects, name)], n_made(tests, name), rule) for name in ("latent", "random")
    }
    random_tests = tests.loc[of_family(tests, "random")]
    directions = max(int(random_tests["draw"].nunique()), 1)
    grid_d, grid_q = np.unique(np.asarray(abs_d, float)), np.unique(np.asarray(max_q, float))
    n, falling, sized, size = _cumulated(families["latent"], grid_d, grid_q)
    n_random = _cumulated(families["random"], grid_d, grid_q)[0]
    d, q = np.meshgrid(grid_d, grid_q, indexing="ij")
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "min_abs_d": d,
            "max_q": q,
            "n_edges": n.astype(np.int64),
            "n_random_edges": n_random.astype(np.int64),
            "random_per_edge": n_random / directions / n,
            "supporting_share": falling / n,
            "mean_abs_d": size / sized,
        }
    table = pd.DataFrame({name: np.where(np.isfinite(v), v, np.nan).ravel() for name, v in columns.items()})
    table = table.astype({"n_edges": np.int64, "n_random_edges": np.int64})
    own = families["latent"]
    headline = own[own["is_edge"]]
    n = len(headline)
    enough = table.loc[table["n_edges"] >= 30, "supporting_share"]
    share = float((headline["mean_delta"] < 0).mean()) if n else np.nan
    return QUESTION.answer(
        [
            Measure("n_edges", n, n=n),
            Measure("supporting_share", share, n=n),
            Measure("supporting_share_min", float(enough.min()) if len(enough) else np.nan, n=n),
            Measure("supporting_share_max", float(enough.max()) if len(enough) else np.nan, n=n),
        ],
        table,
    )


def _cumulated(family: pd.DataFrame, abs_d: np.ndarray, max_q: np.ndarray) -> np.ndarray:
    """Number of edges, of falling ones, of those with a finite d, and their sum of |d|: float64 `[4, abs_d, max_q]`.

    Every test is counted once, at the largest |d| and the smallest q threshold it passes, then summed over the grid.
    """
    size = family["abs_d"].to_numpy()
    finite = np.isfinite(size)
    row = np.searchsorted(abs_d, size, side="left")
    column = np.searchsorted(max_q, family["q_value"].to_numpy(), side="right")
    shape = (len(abs_d) + 1, len(max_q) + 1)
    cell = row * shape[1] + column
    falls = (family["mean_delta"] < 0).to_numpy()
    weights = (None, falls, finite, np.where(finite, size, 0.0))
    counts = np.stack([np.bincount(cell, w, minlength=shape[0] * shape[1]).reshape(shape) for w in weights])
    from_above = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    return from_above.cumsum(axis=2)[:, 1:, :-1]


def _family(rows: pd.DataFrame, n_tests: int, rule: EdgeRule) -> pd.DataFrame:
    q = rule.q_values(rows, n_tests)
    table = pd.DataFrame(
        {
            "abs_d": rows["cohens_d"].abs().to_numpy(np.float64),
            "mean_delta": rows["mean_delta"].to_numpy(np.float64),
            "q_value": q,
            "is_edge": rule.passes(rows, q=q),
        }
    )
    return table[replace(rule, min_abs_d=0.0, max_q=None).passes(rows)]


QUESTION = Question(
    asks="What if the thresholds were others?",
    title="Choice of thresholds",
    function=threshold_sweep,
    definition="thresholds/1",
    null_model="edges of norm-matched random directions under the same thresholds",
    terms=("supporting", "d", "random direction"),
    needs=("effects", "tests"),
    marks="Solid: edges. Dashed: edges of random directions, per direction.",
    words={
        "n_edges": "edges at the thresholds of this run",
        "supporting_share": "supporting share",
        "supporting_share_min": "smallest supporting share at any threshold",
        "supporting_share_max": "largest supporting share at any threshold",
    },
    table_columns={"effects": COLUMNS},
)
