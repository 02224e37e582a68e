"""Effect sizes of two circuits, like for like: equal cells, depth fractions and firing rates."""

from functools import partial

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, n_layers, need_edges, sizes
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.subsample import at_equal_cells
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import SOURCE
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import bootstrap_draws, percentile_interval

_STRATUM = ["log2_n_cells", "source_depth_bin", "target_depth_bin", "rate_bin"]


PerCell = tuple[pd.DataFrame, pd.DataFrame]
"""`cell_effects` and `source_cells` of a trace."""


def compare_effect_sizes(
    first: Circuit,
    second: Circuit,
    cells: tuple[PerCell, PerCell] | None = None,
    n_cells: int | None = None,
    n_depth_bins: int = 3,
    n_rate_bins: int = 5,
    draws: int = 2000,
    seed: int = 0,
) -> Result:
    """Mean |d| of two circuits over the strata that both reach.

    A stratum is (rounded log2 of the number of cells, depth fraction layer / (n_layers - 1) of source and of target,
    quantile of the target's firing rate, cut over both circuits together); it counts for both with the smaller of the
    two numbers of edges. Intervals resample the sources of each circuit. Table: one row per stratum.

    With the responses of both kept cell by cell (`cells`), d is first taken again over the same number of cells for
    every edge of either (`scircuit.analysis.subsample`), by default that in which half of the sources fire, of the run
    in which that is less; without them, edges of like numbers of cells are compared, which leaves up to a factor of
    1.4.
    """
    need_edges(first)
    need_edges(second)
    rng = np.random.default_rng(seed)
    if cells is not None:
        firing = [fires.groupby(SOURCE).size() for _, fires in cells]
        n_cells = n_cells or int(min(number.median() for number in firing))
        first, second = (
            at_equal_cells(circuit, *tables, n_cells, rng)
            for circuit, tables in zip((first, second), cells, strict=True)
        )
        need_edges(first, f" over {n_cells} cells")
        need_edges(second, f" over {n_cells} cells")
    rates = [
        circuit.nodes["frequency"].to_numpy(np.float64)[NodeIndex.of(circuit.nodes).targets(circuit.edges)]
        for circuit in (first, second)
    ]
    cuts = np.quantile(np.concatenate(rates), np.arange(1, n_rate_bins) / n_rate_bins)
    keys = [
        _strata(circuit, np.searchsorted(cuts, rate), n_depth_bins)
        for circuit, rate in zip((first, second), rates, strict=True)
    ]
    names, code = np.unique(np.vstack(keys), axis=0, return_inverse=True)
    codes = np.split(code.reshape(-1), [len(keys[0])])
    counts = np.array([np.bincount(c, minlength=len(names)) for c in codes])
    weight = counts.min(axis=0)
    if not weight.any():
        raise ScircuitError(
            "the two circuits have no edges at equal cells, depth and firing rate; "
            "trace both on the same number of cells, or use fewer bins."
        )
    n = int(weight.sum())
    measures, drawn, matched_mean = [], [], partial(_standardised, weight=weight)
    for label, circuit, c in zip(("first", "second"), (first, second), codes, strict=True):
        sums = _source_sums(circuit, c, len(names))
        drawn.append(bootstrap_draws(sums, matched_mean, rng, draws))
        estimate = float(matched_mean(sums.sum(axis=0)))
        measures.append(Measure.of(label, percentile_interval(estimate, drawn[-1], 0.95, len(sums)), n))
    difference = percentile_interval(measures[0].estimate - measures[1].estimate, drawn[0] - drawn[1], 0.95, 0)
    table = pd.DataFrame(names, columns=_STRATUM)
    return QUESTION.answer(
        [
            Measure.of("difference", difference, n, 0.0),
            *measures,
            Measure("share_compared", 2 * n / counts.sum(), n=int(counts.sum())),
        ],
        table.assign(n_first=counts[0], n_second=counts[1], weight=weight),
        null_model="no difference at equal depth fraction and firing rate, "
        + (f"every d over {n_cells} cells" if cells is not None else "at numbers of cells within a factor of 1.4"),
    )


def _strata(circuit: Circuit, rate_bin: np.ndarray, n_depth_bins: int) -> np.ndarray:
    """Stratum of each edge, int64 `[edge, 4]`."""
    edges, depth = circuit.edges, max(n_layers(circuit) - 1, 1)
    bins = [
        np.minimum(edges[f"{end}_layer"].to_numpy() / depth * n_depth_bins, n_depth_bins - 1).astype(np.int64)
        for end in ("source", "target")
    ]
    cells = np.rint(np.log2(np.maximum(edges["n_cells"].to_numpy(), 1))).astype(np.int64)
    return np.column_stack([cells, *bins, rate_bin])


def _source_sums(circuit: Circuit, stratum: np.ndarray, n_strata: int) -> np.ndarray:
    """Sum of |d| and number of edges in each stratum, float64 `[source, 2 * stratum]`."""
    source = NodeIndex.of(circuit.nodes).sources(circuit.edges)
    names, code = np.unique(source, return_inverse=True)
    cell = code * n_strata + stratum
    size = sizes(circuit.edges)
    known = np.isfinite(size)
    shape = (len(names), n_strata)
    sums = np.bincount(cell[known], size[known], minlength=shape[0] * n_strata).reshape(shape)
    return np.hstack([sums, np.bincount(cell[known], minlength=shape[0] * n_strata).reshape(shape)])


def _standardised(totals: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean over strata of the stratum means, by weight, over the strata present in a draw."""
    size, count = np.split(totals, 2, axis=-1)
    present = np.where(count > 0, weight, 0.0)
    mean = size / np.where(count > 0, count, 1.0)
    total = present.sum(axis=-1)
    return np.where(total > 0, (present * mean).sum(axis=-1) / np.where(total > 0, total, 1.0), np.nan)


QUESTION = Question(
    asks="Are the effects of another run as large, like for like: at equal cells, depth and firing rate?",
    title="Effect sizes, like for like",
    function=compare_effect_sizes,
    definition="effect-sizes-matched/2",
    terms=("d", "chosen"),
    marks="Bars: 95% intervals from a bootstrap over sources.",
    words={
        "difference": "mean |d|, first minus second",
        "first": "mean |d| of the first",
        "second": "mean |d| of the second",
        "share_compared": "share of the edges that could be compared",
    },
    edge_columns=("cohens_d", "n_cells"),
    second="second",
    needs_second=True,
    per_cell=True,
)
