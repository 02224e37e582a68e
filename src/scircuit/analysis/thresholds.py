"""Thresholds: what the numbers become when |d| and q are asked for together."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scircuit.analysis.result import Measure, Result
from scircuit.circuits.build import CONSISTENCY, DEFAULT, RETENTION, EdgeRule
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg

ABS_D = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
MAX_Q = (0.001, 0.01, 0.05)


def threshold_sweep(
    effects: pd.DataFrame,
    tests: pd.DataFrame,
    abs_d: Sequence[float] = ABS_D,
    max_q: Sequence[float] = MAX_Q,
    rule: EdgeRule = DEFAULT,
    retention: float = RETENTION,
) -> Result:
    """Edges and their sign balance over a grid of thresholds, from the trace (edges alone are already cut).

    Parameters
    ----------
    effects, tests : DataFrame
        `trace/effects.parquet` and `trace/tests.parquet`.
    abs_d, max_q : list of float
        The grid; the rule's other thresholds hold throughout.
    rule : EdgeRule
        The rule whose cell is the headline.
    retention : float
        Largest p the trace kept.

    Returns
    -------
    Result
        Measures `n_edges` and `supporting_share` at the rule, `supporting_share_min` and `_max` over the grid
        (cells of at least 30 edges). Table: one row per (min_abs_d, max_q): `n_edges, n_random_edges,
        random_per_edge` (random edges per direction over edges), `supporting_share, mean_abs_d`.

    Raises
    ------
    ScircuitError
        When a q of the grid lies above the retention level.
    """
    if max(max_q) > retention:
        raise ScircuitError(
            f"max_q {max(max_q)} lies above the retention level {retention} of the trace; "
            "leave it out or trace with a higher level."
        )
    families = {kind: _family(effects, tests, kind, rule) for kind in ("latent", "random")}
    random_tests = tests.loc[tests["kind"] == "random"]
    directions = max(int(random_tests["draw"].nunique()), 1)
    rows = []
    for d in abs_d:
        for q in max_q:
            own, random = (f[(f["abs_d"] > d) & (f["q_value"] < q)] for f in families.values())
            n = len(own)
            rows.append(
                {
                    "min_abs_d": d,
                    "max_q": q,
                    "n_edges": n,
                    "n_random_edges": len(random),
                    "random_per_edge": len(random) / directions / n if n else np.nan,
                    "supporting_share": float((own["mean_delta"] < 0).mean()) if n else np.nan,
                    "mean_abs_d": float(own["abs_d"].replace(np.inf, np.nan).mean()) if n else np.nan,
                }
            )
    table = pd.DataFrame(rows)
    at_q = np.inf if rule.max_q is None else rule.max_q
    own = families["latent"]
    headline = own[(own["abs_d"] > rule.min_abs_d) & (own["q_value"] < at_q)]
    n = len(headline)
    enough = table.loc[table["n_edges"] >= 30, "supporting_share"]
    share = float((headline["mean_delta"] < 0).mean()) if n else np.nan
    return Result.of(
        "threshold_sweep",
        "thresholds/1",
        [
            Measure("n_edges", n, n=n),
            Measure("supporting_share", share, n=n),
            Measure("supporting_share_min", float(enough.min()) if len(enough) else np.nan, n=n),
            Measure("supporting_share_max", float(enough.max()) if len(enough) else np.nan, n=n),
        ],
        table,
        "edges of norm-matched random directions under the same thresholds",
        ["supporting", "d", "random direction"],
    )


def _family(effects: pd.DataFrame, tests: pd.DataFrame, kind: str, rule: EdgeRule) -> pd.DataFrame:
    rows = effects.loc[effects["kind"] == kind]
    n_tests = int(tests.loc[tests["kind"] == kind, "n_tests"].sum())
    table = pd.DataFrame(
        {
            "abs_d": rows["cohens_d"].abs().to_numpy(np.float64),
            "mean_delta": rows["mean_delta"].to_numpy(np.float64),
            "q_value": benjamini_hochberg(rows["p_value"].to_numpy(), n_tests),
        }
    )
    keep = (CONSISTENCY[rule.consistency](rows) > rule.min_consistency).to_numpy()
    return table[keep & (rows["n_nonzero"] >= rule.min_nonzero).to_numpy()]
