"""Novelty: which label pairs no resource links, and whether edges go there more often than chance."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import hypergeom, poisson

from scircuit._progress import progress
from scircuit.analysis.conditions import LabelledEdges, label_vocabulary
from scircuit.analysis.nodes import need_edges
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import permutation_p, ratio_interval


def novelty(
    circuit: Circuit,
    gene_sets: Mapping[str, Sequence[str]],
    network: pd.DataFrame | None = None,
    min_overlap: int = 3,
    max_q: float = 0.05,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Share of edges between labels that nothing known links, beside what exchanged targets give.

    Two labels are known to be linked if their sets share at least `min_overlap` genes and more than a hypergeometric
    draw from all genes of all sets explains (BH over all pairs of labels), or if the network (`source, target`,
    whatever the direction) holds at least `min_overlap` links between them and more than their degrees explain (Poisson
    with mean deg_a deg_b / 2 m, BH). The null exchanges targets among the labelled edges of each layer pair: role,
    degree and label frequency stay. Labels without a set take no part.

    Measures over edges between two different labels: `novel_share`, `novel_fold` (two-sided p, below 1 edges follow
    what is known), `paper_novel_share` (the published rule: fewer than three shared genes) and `novel_label_pairs`
    (share of all label pairs that are novel, edges or not). Intervals resample source labels. Table: label pairs with
    `n_edges, expected_edges, mean_abs_d, max_abs_d, shared_genes, network_links, expected_links, known`, novel ones
    first, by |d|.
    """
    need_edges(circuit)
    rng = np.random.default_rng(seed)
    vocabulary = label_vocabulary([circuit])
    labels = vocabulary[vocabulary.isin(list(gene_sets))]
    if not len(labels):
        raise ScircuitError(
            "no label of the circuit has a gene set of that name; give the library the latents were labelled with."
        )
    edges = LabelledEdges.of(circuit, labels)
    n = len(labels)
    if not (edges.source != edges.target).any():
        raise ScircuitError("no edge lies between two different labels with gene sets; annotate with more gene sets.")
    evidence = _evidence([list(gene_sets[label]) for label in labels], network, min_overlap, max_q)
    novel = {"novel": ~evidence["known"], "paper_novel": evidence["shared"] < 3}
    tally = {name: _tally(edges, matrix, n, draws, rng) for name, matrix in novel.items()}
    measures = []
    for name, (own, null, total, drawn) in tally.items():
        n_edges = int(total.sum())
        p = permutation_p(own.sum() / n_edges, drawn, "two-sided")
        share = ratio_interval(own, total, rng)
        measures.append(Measure.of(f"{name}_share", share, n_edges, float(null.sum() / n_edges), p))
        if name == "novel":
            measures.append(Measure.of("novel_fold", ratio_interval(own, null, rng), n_edges, 1.0, p))
    apart = novel["novel"][~np.eye(n, dtype=bool)]
    measures.append(Measure("novel_label_pairs", float(apart.mean()), n=apart.size, unit_of_n="pairs"))
    return QUESTION.answer(measures, _table(edges, labels, evidence))


def _evidence(
    sets: list[list[str]], network: pd.DataFrame | None, min_overlap: int, max_q: float
) -> dict[str, np.ndarray]:
    """`shared`, `links`, `expected_links`, `known`, each `[label, label]`."""
    genes = pd.Index(sorted({gene for members in sets for gene in members}))
    row = np.repeat(np.arange(len(sets)), [len(members) for members in sets])
    column = genes.get_indexer(pd.Index([gene for members in sets for gene in members]))
    named = sparse.csr_array((np.ones(len(row)), (row, column)), shape=(len(sets), len(genes)))
    member = (named > 0).astype(np.float64)
    shared = (member @ member.T).toarray()
    size = np.asarray(member.sum(axis=1)).ravel()
    p = hypergeom.sf(shared - 1, len(genes), size[:, None], size[None, :])
    known = _significant(p, max_q) & (shared >= min_overlap)
    links, expected = np.zeros_like(shared), np.zeros_like(shared)
    if network is not None:
        links, expected = _links(member, genes, network)
        known |= _significant(poisson.sf(links - 1, expected), max_q) & (links >= min_overlap)
    np.fill_diagonal(known, True)
    return {"shared": shared, "links": links, "expected_links": expected, "known": known}


def _links(member: sparse.csr_array, genes: pd.Index, network: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Links between the genes of two labels, and their number in the configuration model."""
    missing = [name for name in ("source", "target") if name not in network]
    if missing:
        raise ScircuitError(f"the network has no column {missing[0]!r}; it needs source and target.")
    a, b = genes.get_indexer(pd.Index(network["source"])), genes.get_indexer(pd.Index(network["target"]))
    keep = (a >= 0) & (b >= 0) & (a != b)
    half = sparse.csr_array((np.ones(keep.sum()), (a[keep], b[keep])), shape=(len(genes),) * 2)
    adjacency = ((half + half.T) > 0).astype(np.float64)
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    own = member @ degree
    return (member @ adjacency @ member.T).toarray(), np.outer(own, own) / max(degree.sum(), 1.0)


def _significant(p: np.ndarray, max_q: float) -> np.ndarray:
    """BH over the distinct pairs of different labels, mirrored."""
    upper = np.triu_indices(len(p), 1)
    called = np.zeros(p.shape, dtype=bool)
    called[upper] = benjamini_hochberg(p[upper]) < max_q
    return called | called.T


def _tally(
    edges: LabelledEdges, novel: np.ndarray, n: int, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Novel edges, their expectation and all edges per source label, and the drawn shares; self pairs left out.

    Drawn shares are of the drawn edges between different labels, and the expectation is scaled to the observed number.
    """

    def count(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        apart = edges.source != target
        hit = novel[edges.source, target] & apart
        return np.bincount(edges.source[hit], minlength=n), np.bincount(edges.source[apart], minlength=n)

    own, total = count(edges.target)
    null, share = np.zeros(n), np.empty(draws)
    for draw in progress(range(draws), desc="novelty"):
        hit, apart = count(edges.permuted_targets(rng))
        share[draw] = hit.sum() / max(apart.sum(), 1)
        null += np.divide(hit, apart, out=np.zeros(n), where=apart > 0) * total / draws
    return own, null, total, share


def _table(edges: LabelledEdges, labels: pd.Index, evidence: dict[str, np.ndarray]) -> pd.DataFrame:
    frame = pd.DataFrame({"source": edges.source, "target": edges.target, "abs_d": edges.abs_d})
    of_pair = frame[frame["source"] != frame["target"]].groupby(["source", "target"])["abs_d"]
    found = of_pair.agg(n_edges="size", mean_abs_d="mean", max_abs_d="max").reset_index()
    s, t = found["source"].to_numpy(), found["target"].to_numpy()
    expected = np.zeros(len(found))
    for begin, end in pairwise(edges.start):
        out = np.bincount(edges.source[begin:end], minlength=len(labels))
        into = np.bincount(edges.target[begin:end], minlength=len(labels))
        expected += out[s] * into[t] / (end - begin)
    table = pd.DataFrame(
        {
            "source_label": labels.to_numpy()[s],
            "target_label": labels.to_numpy()[t],
            "n_edges": found["n_edges"],
            "expected_edges": expected,
            "mean_abs_d": found["mean_abs_d"],
            "max_abs_d": found["max_abs_d"],
            "shared_genes": evidence["shared"][s, t].astype(int),
            "network_links": evidence["links"][s, t].astype(int),
            "expected_links": evidence["expected_links"][s, t],
            "known": evidence["known"][s, t],
        }
    )
    return table.sort_values(["known", "mean_abs_d"], ascending=[True, False]).reset_index(drop=True)


QUESTION = Question(
    asks="Do edges go where nothing known links the labels?",
    title="Novelty",
    function=novelty,
    definition="novelty/1",
    null_model="targets exchanged among the labelled edges of each layer pair",
    glossary="known pair: two labels whose gene sets share more genes, or have more network links between them, than "
    "their sizes and degrees explain; novel: a pair that is not known. Most pairs of labels are novel, so the share "
    "of novel edges says something only beside its expectation.",
    needs=("circuit", "gene_sets", "network"),
    figure="shares",
    marks="Filled: observed, with 95% intervals. Hollow diamonds: expected.",
    edge_columns=("cohens_d",),
    by_itself=False,
)
