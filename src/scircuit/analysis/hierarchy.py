"""Hierarchy of processes: who drives whom between labels, in which order, and how much of it is built in."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from scircuit._progress import progress
from scircuit.analysis.conditions import LabelledEdges, label_codes, label_vocabulary
from scircuit.analysis.nodes import NodeIndex, n_layers, need_edges, traced_sources
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import permutation_p


class _Shape(NamedTuple):
    """Numbers of a graph of labels."""

    n_reciprocal: int
    largest_component: int
    n_pairs: int

    @classmethod
    def of(cls, graph: sparse.csr_array, strong: sparse.csr_array) -> "_Shape":
        largest = np.bincount(connected_components(strong, connection="strong")[1]).max()
        return cls(int(graph.multiply(graph.T).nnz // 2), int(largest), int(graph.nnz))


def hierarchy(
    circuit: Circuit,
    min_source_layers: int = 3,
    min_edges: int = 3,
    min_abs_d: float = 1.0,
    damping: float = 0.85,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """The graph of labels, its circles, and the depth at which labels act.

    Reciprocal pairs and the largest strongly connected component (of the strong graph: label pairs with at least
    `min_edges` edges and mean |d| above `min_abs_d`) are compared with targets exchanged among the labelled edges of
    each layer pair. The depth of a label is the mean depth fraction of its latents, each weighted by its number of
    edges; it is judged only for labels that were traced as source in at least `min_source_layers` layers, against
    labels exchanged among the latents of the same layer and role: where a label's latents lie stays, which of them
    act does not.

    Measures `n_reciprocal`, `largest_component` (null: mean over draws), `n_labels`, `n_pairs`, and `timed_share`
    (share of judged labels with q < 0.05, null 0.05). Table: one row per label with `n_as_source, n_as_target,
    out_labels, in_labels, pagerank, pagerank_null` (over up to 200 exchanges), `component` (of the strong graph, -1
    alone), `is_source` (any of its latents was traced), `source_layers, depth_fraction, depth_null, depth_p, depth_q`
    (NaN where not judged).
    """
    need_edges(circuit)
    rng = np.random.default_rng(seed)
    labels = label_vocabulary([circuit])
    edges = LabelledEdges.of(circuit, labels)
    n, limits = len(labels), (min_edges, min_abs_d)
    if not len(edges.source):
        raise ScircuitError("no edge has a label at both ends; annotate the latents with more gene sets.")
    own = _graphs(edges, edges.target, n, limits)
    observed = _Shape.of(*own)
    drawn = np.empty((draws, len(_Shape._fields)))
    rank_null, n_ranked = np.zeros(n), min(draws, 200)
    for draw in progress(range(draws), desc="hierarchy"):
        graphs = _graphs(edges, edges.permuted_targets(rng), n, limits)
        drawn[draw] = _Shape.of(*graphs)
        if draw < n_ranked:
            rank_null += pagerank(graphs[0], damping) / n_ranked
    table = _labels(edges, labels, *own).assign(pagerank=pagerank(own[0], damping), pagerank_null=rank_null)
    timing = _timing(circuit, labels, min_source_layers, draws, np.random.default_rng([seed, 1]))
    table = pd.concat([table, timing], axis=1)
    judged = table["depth_q"].notna()
    measures = [
        Measure(
            name,
            float(observed[place]),
            null=float(drawn[:, place].mean()),
            p_value=permutation_p(observed[place], drawn[:, place], "two-sided"),
            n=observed.n_pairs,
            unit_of_n="pairs",
        )
        for place, name in enumerate(("n_reciprocal", "largest_component"))
    ]
    measures += [
        Measure("n_labels", float(len(table)), n=len(table), unit_of_n="labels"),
        Measure("n_pairs", float(observed.n_pairs), null=float(drawn[:, 2].mean()), n=len(edges.source)),
        Measure(
            "timed_share",
            float((table.loc[judged, "depth_q"] < 0.05).mean()) if judged.any() else np.nan,
            null=0.05,
            n=int(judged.sum()),
            unit_of_n="labels",
        ),
    ]
    table = table.sort_values("pagerank", ascending=False).reset_index(drop=True)
    return QUESTION.answer(measures, table)


def pagerank(graph: sparse.csr_array, damping: float = 0.85, tolerance: float = 1e-10) -> np.ndarray:
    """PageRank of a weighted directed graph `[from, to]` by power iteration (Brin & Page 1998), sums to 1.

    A node without outgoing links spreads evenly.
    """
    n = graph.shape[0]
    out = np.asarray(graph.sum(axis=1)).ravel()
    step = (sparse.diags_array(1 / np.where(out > 0, out, 1.0)) @ graph).T.tocsr()
    rank = np.full(n, 1 / n)
    for _ in range(1000):
        previous = rank
        rank = damping * (step @ rank + rank[out == 0].sum() / n) + (1 - damping) / n
        if np.abs(rank - previous).sum() < tolerance:
            break
    return rank


def _graphs(
    edges: LabelledEdges, target: np.ndarray, n: int, limits: tuple[int, float]
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Label pairs that have an edge, self pairs left out; and those with so many edges, and |d| above so much."""
    apart = edges.source != target
    pair, place, count = np.unique((edges.source * n + target)[apart], return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=edges.abs_d[apart], minlength=len(pair)) / count
    strong = pair[(count >= limits[0]) & (mean > limits[1])]
    graph, strong_graph = (sparse.csr_array((np.ones(len(p)), (p // n, p % n)), shape=(n, n)) for p in (pair, strong))
    return graph, strong_graph


def _labels(edges: LabelledEdges, labels: pd.Index, graph: sparse.csr_array, strong: sparse.csr_array) -> pd.DataFrame:
    n = len(labels)
    _, component = connected_components(strong, connection="strong")
    alone = np.bincount(component)[component] == 1
    return pd.DataFrame(
        {
            "label": labels.to_numpy(),
            "n_as_source": np.bincount(edges.source, minlength=n),
            "n_as_target": np.bincount(edges.target, minlength=n),
            "out_labels": np.diff(graph.indptr),
            "in_labels": np.diff(graph.tocsc().indptr),
            "component": np.where(alone, -1, component),
        }
    )


def _timing(
    circuit: Circuit, labels: pd.Index, min_source_layers: int, draws: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Edge-weighted depth of each label against labels exchanged within (layer, traced or not)."""
    index, n = NodeIndex.of(circuit.nodes), len(labels)
    code = label_codes(circuit, labels)
    layer = circuit.nodes["layer"].to_numpy(np.int64)
    degree = np.bincount(index.sources(circuit.edges), minlength=index.n_nodes).astype(np.float64)
    degree += np.bincount(index.targets(circuit.edges), minlength=index.n_nodes)
    sources = traced_sources(circuit)
    traced = np.zeros(index.n_nodes, dtype=bool)
    traced[index.rows(sources["source_layer"], sources["source_feature"])] = True
    own = traced & (code >= 0)
    pairs = np.unique(np.stack([code[own], layer[own]]), axis=1)
    source_layers = np.bincount(pairs[0], minlength=n)
    node = np.flatnonzero(code >= 0)
    stratum = layer[node] * 2 + traced[node]
    node = node[np.argsort(stratum, kind="stable")]
    bounds = np.r_[0, np.cumsum(np.bincount(stratum))]
    depth, weight = layer[node] / max(n_layers(circuit) - 1, 1), degree[node]

    def centre(codes: np.ndarray) -> np.ndarray:
        total = np.bincount(codes, weights=weight, minlength=n)
        sums = np.bincount(codes, weights=weight * depth, minlength=n)
        return np.divide(sums, total, out=np.full(n, np.nan), where=total > 0)

    observed, codes = centre(code[node]), code[node].copy()
    drawn = np.empty((draws, n))
    for draw in range(draws):
        for begin, end in pairwise(bounds):
            rng.shuffle(codes[begin:end])
        drawn[draw] = centre(codes)
    judged = (source_layers >= min_source_layers) & np.isfinite(observed)
    p = np.full(n, np.nan)
    for label in np.flatnonzero(judged):
        null = drawn[np.isfinite(drawn[:, label]), label]
        p[label] = permutation_p(observed[label], null, "two-sided")
    q = np.full(n, np.nan)
    q[judged] = benjamini_hochberg(p[judged])
    with np.errstate(invalid="ignore"):
        counts = np.isfinite(drawn).sum(axis=0)
        null_mean = np.where(judged & (counts > 0), np.nansum(drawn, axis=0) / np.maximum(counts, 1), np.nan)
    return pd.DataFrame(
        {
            "is_source": source_layers > 0,
            "source_layers": source_layers,
            "depth_fraction": np.where(judged, observed, np.nan),
            "depth_null": null_mean,
            "depth_p": p,
            "depth_q": q,
        }
    )


QUESTION = Question(
    asks="Which processes drive which, in circles or in an order?",
    title="Hierarchy of processes",
    function=hierarchy,
    definition="hierarchy/1",
    null_model="targets exchanged among the labelled edges of each layer pair; labels exchanged within layer and role "
    "(depth)",
    glossary="depth fraction: layer over the last layer, so that models of different depth compare. reciprocal pair: "
    "two labels that drive each other, at different layers; component: labels that reach each other in circles. Edges "
    "only go forward, so order between labels means something only beside labels exchanged within layers.",
    marks="Every mark is a label; filled: its depth differs from labels exchanged within layers.",
    edge_columns=("cohens_d",),
    by_itself=False,
)
