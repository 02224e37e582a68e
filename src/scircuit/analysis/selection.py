"""Selection: how much of a circuit's numbers is due to which latents were chosen as sources."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_edges, sizes, traced_sources
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.strata import rank_bins
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import bootstrap_draws, percentile_interval, ratio

_NUMBERS = {
    "edges_per_1000_tests": ("n_edges", "n_tests", 1000.0),
    "supporting_share": ("n_falling", "n_edges", 1.0),
    "mean_abs_d": ("sum_abs_d", "n_sized", 1.0),
}


def selection(
    circuit: Circuit, random: Circuit | None = None, n_rate_bins: int = 10, draws: int = 2000, seed: int = 0
) -> Result:
    """Annotated against random sources at equal layer and firing rate (`n_rate_bins` quantiles within each layer).

    Annotated are the sources of `circuit` with a gene set. Those of `random`, a circuit of the same model and
    dictionaries, were drawn at random; without it the sources of `circuit` that no gene set names stand for them.

    Measures for each number (edges per 1,000 tests, supporting share, mean |d|): `<number>_difference` (annotated minus
    random after weighting random sources to the annotated ones' layers and rates; null 0), `<number>_annotated`,
    `<number>_random` (weighted) and `<number>_unmatched_difference`. Table: one row per source of either group with its
    weight.
    """
    need_edges(circuit)
    rng = np.random.default_rng(seed)
    own = source_table(circuit)
    annotated = own.loc[own["n_terms"] > 0]
    pool = own.loc[own["n_terms"] == 0] if random is None else source_table(random)
    if random is None and (annotated.empty or len(annotated) == len(own)):
        raise ScircuitError(
            f"{len(annotated)} of {len(own)} sources are annotated, so there is nothing to compare; "
            "trace sources at random as well, or name a run that did (`--with RUN`, `random` in Python)."
        )
    table = _weighted(annotated, pool, n_rate_bins)
    if not (table["weight"] > 0).any():
        raise ScircuitError("annotated and random sources share no layer and firing rate; trace more of them.")
    groups = [table.loc[table["group"] == name] for name in ("annotated", "random")]
    measures = []
    for name, (top, bottom, scale) in _NUMBERS.items():
        sums = [group[[top, bottom]].to_numpy(np.float64) * group[["weight"]].to_numpy() for group in groups]
        drawn = [scale * bootstrap_draws(s, ratio, rng, draws) for s in sums]
        values = [scale * float(ratio(s.sum(axis=0))) for s in sums]
        raw = [scale * float(ratio(g[[top, bottom]].to_numpy(np.float64).sum(axis=0))) for g in groups]
        n = sum(len(group) for group in groups)
        difference = percentile_interval(values[0] - values[1], drawn[0] - drawn[1], 0.95, n)
        measures.append(Measure.of(f"{name}_difference", difference, n, 0.0, unit_of_n="sources"))
        for label, value, draw, group in zip(("annotated", "random"), values, drawn, groups, strict=True):
            interval = percentile_interval(value, draw, 0.95, len(group))
            measures.append(Measure.of(f"{name}_{label}", interval, len(group), unit_of_n="sources"))
        measures.append(Measure(f"{name}_unmatched_difference", raw[0] - raw[1], null=0.0, n=n, unit_of_n="sources"))
    return QUESTION.answer(measures, table)


def source_table(circuit: Circuit) -> pd.DataFrame:
    """One row per traced source: its rate and gene sets, its tests, edges, falling edges and sum of |d|."""
    index = NodeIndex.of(circuit.nodes)
    row = index.sources(traced_sources(circuit))
    own = circuit.tests.loc[circuit.tests["kind"] == "latent"]
    source, n = index.sources(circuit.edges), index.n_nodes
    size = sizes(circuit.edges)
    falls = (circuit.edges["mean_delta"] < 0).to_numpy()
    sums = {
        "n_tests": np.bincount(index.sources(own), own["n_tests"], minlength=n),
        "n_edges": np.bincount(source, minlength=n),
        "n_falling": np.bincount(source, falls, minlength=n),
        "sum_abs_d": np.bincount(source, np.nan_to_num(size), minlength=n),
        "n_sized": np.bincount(source, np.isfinite(size), minlength=n),
    }
    table = circuit.nodes.iloc[row][["layer", "feature", "frequency", "n_terms"]].reset_index(drop=True)
    return table.assign(**{name: values[row] for name, values in sums.items()})


def _weighted(annotated: pd.DataFrame, pool: pd.DataFrame, n_bins: int) -> pd.DataFrame:
    """Both groups in one table; random sources weigh what their stratum counts among the annotated."""
    table = pd.concat([annotated.assign(group="annotated"), pool.assign(group="random")], ignore_index=True)
    rate_bin = table.groupby("layer")["frequency"].transform(
        lambda rates: rank_bins(rates.to_numpy(np.float64), n_bins)
    )
    key = table["layer"].to_numpy(np.int64) * n_bins + rate_bin.to_numpy(np.int64)
    names, code = np.unique(key, return_inverse=True)
    is_annotated = (table["group"] == "annotated").to_numpy()
    n_annotated = np.bincount(code, is_annotated, minlength=len(names))
    n_random = np.bincount(code, ~is_annotated, minlength=len(names))
    share = np.divide(n_annotated, n_random, out=np.zeros(len(names)), where=n_random > 0)
    reached = (n_annotated > 0) & (n_random > 0)
    return table.assign(stratum=key, weight=np.where(is_annotated, reached[code], share[code]))


QUESTION = Question(
    asks="How much is due to the choice of sources?",
    title="Selection of the sources",
    function=selection,
    definition="selection/2",
    null_model="random sources weighted to the layers and firing rates of the annotated ones",
    terms=("supporting", "d"),
    marks="Every mark is a source: its edges per 1,000 tests against its firing rate.",
    edge_columns=("mean_delta", "cohens_d"),
    second="random",
)
