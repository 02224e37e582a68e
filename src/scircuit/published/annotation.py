"""Annotation, labels and scores as the published pipeline computes them, for comparison beside the corrected rules.

Known to be permissive (arXiv 2603.01752): two common genes suffice, the background are the top genes of the layer, the
sets are not cut to it, tests with fewer than two common genes are left out of the BH family, a single network link
counts as an annotation, and a latent is labelled by one rule as a source and by another as a target.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.circuits.schema import LATENT
from scircuit.errors import ScircuitError
from scircuit.features.hypergeometric import overlap_p_each
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.networks import Network
from scircuit.published.definitions import (
    SOURCE_LIBRARIES,
    TARGET_LIBRARY,
    UNKNOWN_SOURCE,
    UNKNOWN_TARGET,
    called,
    labels,
)
from scircuit.stats.multiple import benjamini_hochberg

N_TOP, MIN_SIZE, MAX_SIZE, MIN_OVERLAP = 20, 5, 500, 2


class Row(NamedTuple):
    """One annotation as the published files list it; `None` where a rule has no such number."""

    layer: int
    feature: int
    library: str
    term: str
    n_overlap: int
    set_size: int
    odds_ratio: float | None
    p_value: float | None
    q_value: float | None
    n_links: int
    density: float | None


def annotate_as_published(
    features: pd.DataFrame,
    libraries: Sequence[GeneSets],
    *,
    trrust: Network | None = None,
    string: Network | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Annotations of every latent by the published rules (annotation step of the study's atlas).

    Per layer: query = the first 20 top genes; N = size of the union of all queries; sets of 5 to 500 genes; one-sided
    Fisher tests of (a, b, c, max(N - a - b - c, 0)) where a >= 2; BH over these tests of all libraries. With `trrust`,
    one more set, `transcription_factors` (library `TRRUST_TF`). A network with a link inside the query adds
    `pairwise_enrichment` (`TRRUST_edges`, `STRING_edges`) without a test; the published program looks TRRUST pairs up
    in alphabetical order, so only links whose regulator comes first are found, and that is kept.

    One row per annotation (`Row`), in the order in which the published files list them: library by library, then the
    links. The published label rules find libraries by the names `GO_BP`, `KEGG` and `Reactome`.
    """
    sets = list(libraries)
    if trrust is not None:
        factors = {"transcription_factors": sorted(set(trrust.edges["source"]))}
        sets.append(GeneSets.from_dict("TRRUST_TF", factors))
    if features.empty:
        raise ScircuitError("The feature table is empty; describe features first.")
    rows: list[Row] = []
    for number, part in features.groupby("layer", sort=True):
        layer = int(str(number))
        queries = {int(f): list(genes)[:N_TOP] for f, genes in zip(part["feature"], part["top_genes"], strict=True)}
        rows += _tests(layer, queries, sets, alpha)
        for name, network in (("STRING_edges", string), ("TRRUST_edges", trrust)):
            if network is not None:
                rows += _links(layer, queries, name, network)
    table = pd.DataFrame(rows, columns=list(Row._fields))
    numbers = ["odds_ratio", "p_value", "q_value", "density"]
    table[numbers] = table[numbers].astype(float)
    order = {name: i for i, name in enumerate([s.name for s in sets] + ["STRING_edges", "TRRUST_edges"])}
    table["place"] = table["library"].map(order)
    table = table.sort_values(["layer", "feature", "place"], kind="stable", ignore_index=True)
    return table.drop(columns="place")


def label_as_published(
    features: pd.DataFrame,
    annotations: pd.DataFrame,
    *,
    source_libraries: Sequence[str] = SOURCE_LIBRARIES,
    target_libraries: Sequence[str] = (TARGET_LIBRARY,),
    link_score: int = 1,
) -> pd.DataFrame:
    """The two published labels and the score of each latent.

    `source_label`: the first annotation in file order from GO_BP, KEGG or Reactome, else `unknown`. `target_label`:
    the GO_BP term with the smallest q, else `unannotated`. `score`: 10 * libraries + terms + `link_score` * link
    annotations - log10(max(min q, 1e-30)), links counted with q = 1. The study's program takes 1 for Geneformer and 2
    for scGPT as `link_score`.
    """
    found = labels(annotations, source_libraries, target_libraries)
    groups = annotations.assign(worth=np.where(annotations["n_links"] > 0, link_score, 1)).groupby(LATENT)
    best = groups["q_value"].agg(lambda q: q.fillna(1.0).min()).clip(lower=1e-30).astype(float)
    score = 10 * groups["library"].nunique() + groups["worth"].sum() - np.log10(best)
    latents = features[LATENT]
    return latents.assign(
        source_label=called(latents, found["source_label"], UNKNOWN_SOURCE),
        target_label=called(latents, found["target_label"], UNKNOWN_TARGET),
        score=score.reindex(pd.MultiIndex.from_frame(latents)).fillna(0.0).to_numpy(),
    )


def _tests(layer: int, queries: Mapping[int, list[str]], libraries: Sequence[GeneSets], alpha: float) -> list[Row]:
    row_of: dict[str, int] = {}
    for genes in queries.values():
        for gene in genes:
            row_of.setdefault(gene, len(row_of))
    terms = [
        (library.name, term, genes)
        for library in libraries
        for term, genes in library.genes.items()
        if library.name == "TRRUST_TF" or MIN_SIZE <= len(genes) <= MAX_SIZE
    ]
    query = _indicator([set(genes) for genes in queries.values()], row_of)
    member = _indicator([genes for *_, genes in terms], row_of)
    common = (query @ member.T).tocsr()
    common.sort_indices()
    overlap = common.tocoo()
    enough = overlap.data >= MIN_OVERLAP
    feature, term = overlap.row[enough], overlap.col[enough]
    size = np.array([len(genes) for *_, genes in terms], dtype=np.int64)
    a = overlap.data[enough].astype(np.int64)
    b = np.diff(query.indptr)[feature] - a
    c = size[term] - a
    d = np.maximum(len(row_of) - a - b - c, 0)
    p = overlap_p_each(a, a + c, a + b, a + b + c + d)
    q = benjamini_hochberg(p)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = a * d / (b * c)
    numbers = list(queries)
    return [
        Row(
            layer, numbers[feature[i]], terms[term[i]][0], terms[term[i]][1], int(a[i]), int(size[term[i]]),
            float(odds[i]), float(p[i]), float(q[i]), 0, None,
        )
        for i in np.flatnonzero(q < alpha)
    ]  # fmt: skip


def _indicator(sets: Sequence[Collection[str]], row_of: Mapping[str, int]) -> sparse.csr_matrix:
    """Membership int32 `[set, gene]` of the genes in `row_of`; a gene named twice counts once."""
    rows = [sorted({row_of[gene] for gene in genes if gene in row_of}) for genes in sets]
    starts = np.cumsum([0, *map(len, rows)])
    columns = np.array([row for part in rows for row in part], dtype=np.int64)
    return sparse.csr_matrix((np.ones(len(columns), np.int32), columns, starts), shape=(len(rows), len(row_of)))


def _links(layer: int, queries: Mapping[int, list[str]], name: str, network: Network) -> list[Row]:
    pairs = set(zip(network.edges["source"], network.edges["target"], strict=True))
    rows = []
    for feature, genes in queries.items():
        members = sorted(set(genes))
        n = sum((x, y) in pairs for i, x in enumerate(members) for y in members[i + 1 :])
        if n:
            density = n / (len(members) * (len(members) - 1) / 2)
            rows.append(Row(layer, feature, name, "pairwise_enrichment", 0, 0, None, None, None, n, density))
    return rows
