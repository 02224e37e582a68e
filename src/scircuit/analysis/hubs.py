"""Hubs: uncapped degree and strength, what firing rate and norm do not explain of them, and the tail."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_edges, sizes, traced_sources
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import percentile_interval, permutation_p
from scircuit.stats.tails import compare_tails

_NULL_DRAWS = 99
_SOURCE_BINS = 10


def hubs(circuit: Circuit, draws: int = 1000, seed: int = 0) -> Result:
    """Out- and in-degree of every latent that was a source or could have been a target.

    The residual degree is what is left of log(1 + degree) after least squares on the logs of firing rate
    and mean activation, within layers: an ablation that removes more does more, whatever the latent means.

    Measures `gini_out` of the sources and `gini_in` of the targets (0 even, 1 all in one; null and p: see `exposed`),
    `explained_out`, `explained_in` (R2 of that regression), and where the tail of the degrees holds at least 50 latents
    `tail_exponent` and `tail_against_<rival>` (log-likelihood ratio, positive favours the power law; p after Vuong),
    for in-degrees `in_tail_...`. Table: one row per latent: `layer, feature, label, is_source, out_degree,
    out_strength, in_degree, in_strength, out_residual, in_residual`, strongest out-degree first.
    """
    need_edges(circuit)
    rng = np.random.default_rng(seed)
    table = degrees(circuit)
    measures = []
    for end in ("out", "in"):
        side = table.loc[table["is_source" if end == "out" else "is_target"]]
        degree = side[f"{end}_degree"].to_numpy(np.float64)
        residual, explained = _residual(side, degree)
        table.loc[side.index, f"{end}_residual"] = residual
        thrown = np.array([gini(null[side.index]) for null in exposed(circuit, end, rng, _NULL_DRAWS)])
        interval = percentile_interval(gini(degree), _gini_draws(degree, rng, draws), 0.95, len(degree))
        p = permutation_p(interval.estimate, thrown)
        unit = "sources" if end == "out" else "targets"
        measures.append(Measure.of(f"gini_{end}", interval, len(degree), float(thrown.mean()), p, unit))
        measures.append(Measure(f"explained_{end}", explained, null=0.0, n=len(side), unit_of_n=unit))
        measures += _tail_measures(degree, "" if end == "out" else "in_")
    order = ["out_degree", "in_degree", "layer", "feature"]
    return QUESTION.answer(measures, table.sort_values(order, ascending=[False, False, True, True], ignore_index=True))


def degrees(circuit: Circuit) -> pd.DataFrame:
    """Degree and strength of every latent, one row per node: see `hubs`.

    `is_target` marks the latents of tested layers that ever fire, or have an edge: the others could not respond.
    """
    index = NodeIndex.of(circuit.nodes)
    size = np.nan_to_num(sizes(circuit.edges))
    table = circuit.nodes[["layer", "feature", "label", "frequency", "mean_activation"]].copy()
    for end, rows in (("out", index.sources(circuit.edges)), ("in", index.targets(circuit.edges))):
        table[f"{end}_degree"] = np.bincount(rows, minlength=len(table))
        table[f"{end}_strength"] = np.bincount(rows, size, minlength=len(table))
        table[f"{end}_residual"] = np.nan
    table["is_source"] = False
    table.loc[index.sources(traced_sources(circuit)), "is_source"] = True
    alive = (circuit.nodes["n_firings"] > 0).to_numpy() | (table["in_degree"] > 0).to_numpy()
    table["is_target"] = table["layer"].isin(circuit.tests["target_layer"].unique()) & alive
    return table


def exposed(circuit: Circuit, end: str, rng: np.random.Generator, draws: int) -> Iterator[np.ndarray]:
    """Degrees `[node]` without hubs: how many edges a latent would have by the tests that it took part in.

    Out-degrees (`end` "out"): every test of a layer pair is an edge with the same chance, so that a source that was
    tested more often has more. In-degrees: each source keeps its edges into a layer, which fall on any of the layer's
    targets, so that a layer that more sources reach has more. Layer pairs keep their numbers of edges: depth makes no
    hub.
    """
    index, layers = NodeIndex.of(circuit.nodes), 1 << 10
    tests = circuit.tests.loc[circuit.tests["kind"] == "latent"]
    source, layer = index.sources(tests), tests["target_layer"].to_numpy(np.int64)
    key, edge_key = source * layers + layer, index.sources(circuit.edges) * layers + circuit.edges["target_layer"]
    block, row = np.unique(key, return_inverse=True)
    made = np.bincount(row, tests["n_tests"])
    found = np.bincount(np.searchsorted(block, edge_key.to_numpy(np.int64)), minlength=len(block))
    source, layer = np.divmod(block, layers)
    nodes = circuit.nodes["layer"].to_numpy(np.int64)
    if end == "out":
        pair = np.unique(nodes[source] * layers + layer, return_inverse=True)[1]
        chance = np.bincount(pair, found)[pair] / np.maximum(np.bincount(pair, made)[pair], 1)
        for _ in range(draws):
            drawn = rng.binomial(np.maximum(made, found).astype(np.int64), np.minimum(chance, 1))
            yield np.bincount(source, drawn, minlength=index.n_nodes)
        return
    is_target = degrees(circuit)["is_target"].to_numpy()
    reached = [(np.flatnonzero(is_target & (nodes == v)), np.sort(found[layer == v])) for v in np.unique(layer)]
    for _ in range(draws):
        degree = np.zeros(index.n_nodes)
        for targets, edges in reached:
            # Sources alike in their number of edges are drawn together.
            for alike in np.array_split(edges, min(len(edges), _SOURCE_BINS)):
                each = min(float(alike.mean()) / max(len(targets), 1), 1.0)
                degree[targets] += rng.binomial(len(alike), each, len(targets))
        yield degree


def gini(values: np.ndarray) -> float:
    """Gini coefficient of non-negative values, NaN when all are zero."""
    ordered = np.sort(values)
    total, n = ordered.sum(), len(ordered)
    if n == 0 or total == 0:
        return np.nan
    return float(2 * (np.arange(1, n + 1) @ ordered) / (n * total) - (n + 1) / n)


def _gini_draws(degree: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Bootstrap draws from the histogram of degrees, so that their cost does not grow with the latents."""
    values, inverse = np.unique(degree, return_inverse=True)
    share = np.bincount(inverse) / len(degree)
    weights = rng.multinomial(len(degree), share, size=draws).astype(np.float64)
    upto = np.cumsum(weights, axis=1)
    rank_sums = weights * (upto - weights + (weights + 1) / 2)
    n, total = len(degree), weights @ values
    return 2 * (rank_sums @ values) / (n * np.where(total > 0, total, np.nan)) - (n + 1) / n


def _residual(side: pd.DataFrame, degree: np.ndarray) -> tuple[np.ndarray, float]:
    """Within-layer residual of log(1 + degree) on log firing rate and log activation, and the R2."""
    usable = ((side["frequency"] > 0) & (side["mean_activation"] > 0)).to_numpy()
    frame = pd.DataFrame(
        {
            "frequency": np.log(side.loc[usable, "frequency"].astype(np.float64)),
            "mean_activation": np.log(side.loc[usable, "mean_activation"].astype(np.float64)),
            "y": np.log1p(degree[usable]),
        }
    )
    centred = frame - frame.groupby(side.loc[usable, "layer"]).transform("mean")
    x, y = centred[["frequency", "mean_activation"]].to_numpy(), centred["y"].to_numpy()
    slope, *_ = np.linalg.lstsq(x, y, rcond=None)
    residual = np.full(len(side), np.nan)
    residual[usable] = y - x @ slope
    total = float(y @ y)
    explained = 1 - float(np.nansum(residual**2)) / total if total > 0 else np.nan
    return residual, explained


def _tail_measures(degree: np.ndarray, prefix: str) -> list[Measure]:
    try:
        fit = compare_tails(degree)
    except ScircuitError:
        return []
    unit = "latents in the tail"
    rows = [Measure(f"{prefix}tail_exponent", fit.alpha, n=fit.n_tail, unit_of_n=unit)]
    columns = (fit.rivals["rival"], fit.rivals["log_likelihood_ratio"], fit.rivals["p_value"])
    for rival, ratio, p in zip(*columns, strict=True):
        name = f"{prefix}tail_against_{rival}"
        rows.append(Measure(name, ratio, null=0.0, p_value=p, n=fit.n_tail, unit_of_n=unit))
    return rows


QUESTION = Question(
    asks="Which latents hold most edges, and why?",
    title="Hubs",
    function=hubs,
    definition="hubs/3",
    null_model="edges thrown at random over the tests that were made",
    terms=("degree", "d"),
    marks="Share of the sources with at least so many edges out of them, and of the targets with so many into them; "
    "uncapped, on logarithmic scales.",
    words={
        "gini_out": "Gini of the sources' out-degrees",
        "gini_in": "Gini of the targets' in-degrees",
        "explained_out": "out-degree explained by firing rate and activation (R²)",
        "explained_in": "in-degree explained by firing rate and activation (R²)",
        "tail_exponent": "power-law exponent of the out-degree tail",
        "in_tail_exponent": "power-law exponent of the in-degree tail",
    },
    edge_columns=("cohens_d",),
)
