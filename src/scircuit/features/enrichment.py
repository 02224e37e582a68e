"""Over-representation of gene sets among the top genes of every latent, all latents and all sets at once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit._progress import progress
from scircuit.errors import ScircuitError
from scircuit.features.hypergeometric import overlap_p
from scircuit.features.queries import query_matrix
from scircuit.knowledge.genes import GeneNames
from scircuit.knowledge.gmt import GeneSets
from scircuit.stats.multiple import benjamini_hochberg

log = logging.getLogger(__name__)

COLUMNS = (
    "layer", "feature", "library", "term", "n_overlap", "set_size", "query_size", "fold", "p_value", "q_value",
    "information_content",
)  # fmt: skip


@dataclass(frozen=True)
class Enrichment:
    """Significant (latent, set) pairs and the family of tests they were called in."""

    terms: pd.DataFrame
    """`COLUMNS`, rows with q <= alpha, by latent and then as the label rule ranks them."""
    meta: Mapping[str, Any]
    """`n_tests` (the BH family), `n_queries, n_sets, n_background, alpha, min_overlap`, and per library its name,
    version, sha256, number of sets, genes found and ambiguous genes."""


@dataclass(frozen=True)
class SetMatrix:
    """Gene sets cut to a background; `library` and `term` are the names of the sets."""

    member: sparse.csr_matrix
    """int32 `[gene, set]`: 1 where the gene belongs to the set."""
    library: np.ndarray
    term: np.ndarray
    size: np.ndarray
    """int64 `[set]`: genes of each set that are in the background, all > 0."""
    names: GeneNames
    """The background's genes, by any name."""
    report: list[dict[str, Any]]
    """Per library: what was matched."""

    @property
    def n_background(self) -> int:
        """Genes of the background."""
        return self.member.shape[0]


def cut_to_background(libraries: GeneSets | Sequence[GeneSets], background: pd.DataFrame) -> SetMatrix:
    """Intersect gene sets with the genes tokenised in the run (`symbol, ensembl_id`).

    Names are resolved by `knowledge.genes.GeneNames`; ambiguous ones are left out and reported. Genes that share a
    symbol count once. Sets without a gene in the background are dropped and counted.
    """
    libraries = [libraries] if isinstance(libraries, GeneSets) else list(libraries)
    if len({sets.name for sets in libraries}) < len(libraries):
        raise ScircuitError(
            f"Two gene-set libraries are called {sorted(sets.name for sets in libraries)}; give each its own name."
        )
    names = GeneNames(background.drop_duplicates("symbol", ignore_index=True))
    gene: list[np.ndarray] = []
    column: list[np.ndarray] = []
    terms: list[tuple[str, str]] = []
    report: list[dict[str, Any]] = []
    for sets in libraries:
        members = [g for genes in sets.genes.values() for g in genes]
        found = names.resolve(members)
        length = [len(genes) for genes in sets.genes.values()]
        known = found.row >= 0
        gene.append(found.row[known])
        column.append((len(terms) + np.repeat(np.arange(len(sets)), length))[known])
        terms += [(sets.name, term) for term in sets.genes]
        report.append(
            {
                "name": sets.name,
                "version": sets.version,
                "sha256": sets.sha256,
                "n_sets": len(sets),
                "n_genes_found": len(np.unique(found.row[known])),
                "ambiguous_genes": sorted(found.ambiguous),
            }
        )
        log.info("%s: %s", sets.name, found.describe())
    where = (np.concatenate(gene), np.concatenate(column)) if gene else (np.empty(0, int), np.empty(0, int))
    member = sparse.csr_matrix((np.ones(len(where[0]), np.int32), where), shape=(len(names.genes), len(terms)))
    member.data[:] = 1  # two names of one gene within a set
    size = np.asarray(member.sum(axis=0)).ravel().astype(np.int64)
    kept = np.flatnonzero(size)
    if len(kept) == 0:
        raise ScircuitError(
            f"No gene of {', '.join(s.name for s in libraries) or 'any library'} is among the {len(background):,} "
            "genes tokenised in the run; the sets must use human gene symbols or Ensembl ids."
        )
    if len(kept) < len(size):
        log.info("%d of %d sets have no gene in the background and were left out", len(size) - len(kept), len(size))
    library, term = (np.array(part, dtype=object)[kept] for part in zip(*terms, strict=True))
    return SetMatrix(member[:, kept].tocsr(), library, term, size[kept], names, report)


def enrich(
    features: pd.DataFrame,
    libraries: GeneSets | Sequence[GeneSets],
    background: pd.DataFrame,
    *,
    alpha: float = 0.05,
    min_overlap: int = 3,
    latents_per_block: int = 4096,
) -> Enrichment:
    """Test every gene set in the top genes of every latent.

    One-sided hypergeometric tests. The query are a latent's `top_genes`, the background the genes tokenised in the
    run, the sets are intersected with it. p = P(X >= overlap); with fewer than `min_overlap` common genes a pair is
    not called and enters the family with p = 1, which keeps BH valid. **The BH family is every pair of a latent with
    a non-empty query and a set with a non-empty intersection**, over all layers and libraries of the call.

    Parameters
    ----------
    features : DataFrame
        Columns `layer, feature, top_genes`.
    background : DataFrame
        `symbol, ensembl_id` of the genes tokenised in the run (`Catalogue.background`).
    latents_per_block : int
        Latents tested at a time; bounds the memory.

    Returns
    -------
    Enrichment
        The pairs with q <= `alpha`. `information_content` is -log2(set size / background), Resnik (1995) with genes as
        the corpus; `fold` is observed over expected overlap.

    Raises
    ------
    ScircuitError
        When no set has a gene in the background, or a top gene is not in it.
    """
    sets = cut_to_background(libraries, background)
    query = query_matrix(features, sets.names)
    size = np.asarray(query.sum(axis=1)).ravel().astype(np.int64)
    n_tests = int((size > 0).sum()) * len(sets.term)
    parts = []
    for start in progress(range(0, query.shape[0], latents_per_block), desc="enrichment", unit="block"):
        block = slice(start, start + latents_per_block)
        parts.append(_test(query[block], size[block], sets, start, min_overlap, alpha))
    row, column, overlap, p = (np.concatenate(part) for part in zip(*parts, strict=True))
    q = benjamini_hochberg(p, n_tests)
    called = q <= alpha
    row, column, overlap, p, q = row[called], column[called], overlap[called], p[called], q[called]
    set_size = sets.size[column]
    terms = pd.DataFrame(
        {
            "layer": features["layer"].to_numpy()[row],
            "feature": features["feature"].to_numpy()[row],
            "library": sets.library[column],
            "term": sets.term[column],
            "n_overlap": overlap,
            "set_size": set_size,
            "query_size": size[row],
            "fold": overlap * sets.n_background / (set_size * size[row]),
            "p_value": p,
            "q_value": q,
            "information_content": -np.log2(set_size / sets.n_background),
        }
    )
    meta = {
        "n_tests": n_tests,
        "n_queries": int((size > 0).sum()),
        "n_sets": len(sets.term),
        "n_background": sets.n_background,
        "alpha": alpha,
        "min_overlap": min_overlap,
        "libraries": sets.report,
    }
    return Enrichment(rank_terms(terms), meta)


def rank_terms(terms: pd.DataFrame) -> pd.DataFrame:
    """The order of the label rule within each latent: smaller q, larger fold, more informative, library, name."""
    return terms.sort_values(
        ["layer", "feature", "q_value", "fold", "information_content", "library", "term"],
        ascending=[True, True, True, False, False, True, True],
        ignore_index=True,
        kind="stable",
    )


def _test(
    query: sparse.csr_matrix, size: np.ndarray, sets: SetMatrix, start: int, min_overlap: int, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one block with p <= alpha: latent row, set, overlap, p. Larger p cannot reach q <= alpha."""
    common = (query @ sets.member).tocoo()
    enough = common.data >= min_overlap
    row, column, overlap = common.row[enough], common.col[enough], common.data[enough].astype(np.int64)
    p = overlap_p(overlap, sets.size[column], size[row], sets.n_background)
    kept = p <= alpha
    return row[kept].astype(np.int64) + start, column[kept].astype(np.int64), overlap[kept], p[kept]
