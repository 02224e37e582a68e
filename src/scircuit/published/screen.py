"""The published comparison with a screen: gene pairs by its weighting, its sign accuracy beside nulls. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LATENT, SOURCE, TARGET
from scircuit.errors import ScircuitError
from scircuit.perturbation import GenePredictions, Screen, differential_expression, open_screen
from scircuit.published.concordance import Concordance, pooled_concordance

N_GENES = 10
"""Top genes of a latent that are paired."""
FEWEST_CELLS = 5
"""Cells of a perturbation below which the published study left it out."""


@dataclass(frozen=True)
class PublishedScreen:
    """What the published study says of a screen, from a circuit of the published rule."""

    circuit: Circuit

    def predictions(self, knocked: pd.Index) -> GenePredictions:
        """The published weighting, for the genes that were knocked down."""
        return predict_paper(self.circuit.edges, self.circuit.nodes, knocked)

    def concordance(self, screen: Screen, cache: Path, draws: int, seed: int) -> Concordance:
        """The published sign accuracy on the published fold change, over the cells that the screen keeps."""
        effects = differential_expression(screen, "paper", cache=cache)
        return pooled_concordance(paper_gene_pairs(self.circuit.edges, self.circuit.nodes), effects, draws, seed)

    def as_run(self, path: str | Path, lines: bool, columns: Mapping[str, Any], seed: int) -> Result:
        """The comparison as the published study ran it: share of gene pairs whose signs agree.

        Predictions: top 10 x top 10 genes of every edge between latents that a gene set names (the published gene lists
        are of annotated latents only). Truth: log2(mean + 1) against all controls, all cell lines (`lines`) pooled,
        pairs with |log fold change| >= 0.01. `columns` are `perturbation` and `control` of `open_screen`.

        Measures `direction` (null: the share that always saying down gets) and `spearman` of the sizes.
        """
        pairs = paper_gene_pairs(self.circuit.edges, with_genes(self.circuit))
        screen = open_screen(path, lines="all" if lines else None, min_cells=FEWEST_CELLS, **columns)
        found = pooled_concordance(pairs, differential_expression(screen, "paper"), seed=seed)
        accuracy, n = found.accuracy, len(found.pairs)
        measures = [
            Measure("direction", accuracy.estimate, accuracy.low, accuracy.high, found.always_down.estimate, n=n,
                    unit_of_n="gene pairs"),
            Measure("spearman", found.rho, null=0.0, p_value=found.rho_p, n=n, unit_of_n="gene pairs"),
        ]  # fmt: skip
        null = "the share that always saying down gets"
        return Result.of("validation", "paper/arXiv:2603.01752", measures, found.pairs, null, [])


def with_genes(circuit: Circuit) -> pd.DataFrame:
    """Nodes that a gene set names: the published study kept gene lists of annotated latents only."""
    return circuit.nodes[circuit.nodes["n_terms"] > 0]


def predict_paper(edges: pd.DataFrame, nodes: pd.DataFrame, knocked: pd.Index | None = None) -> GenePredictions:
    """The published weighting (arXiv 2603.01752): top 10 x top 10 genes of each edge, d / (rank * rank).

    mean_d[g, j] = sum over edges of d / ((i + 1) (k + 1)) / number of edges, g and j being the i-th and k-th top gene
    of source and target; kept where two edges agree on the pair or one has |d| > 2. Identical genes are skipped.
    """
    pairs = paper_gene_pairs(edges, nodes)
    if knocked is not None:
        pairs = pairs[pairs["source_gene"].isin(knocked)]
    if pairs.empty:
        raise ScircuitError(
            "the published weighting predicts no pair of genes for these knock-downs; two edges must agree on a pair, "
            "or one have |d| > 2."
        )
    row, rows = pd.factorize(pairs["source_gene"], sort=True)
    column, columns = pd.factorize(pairs["target_gene"], sort=True)
    scores = np.zeros((len(rows), len(columns)), dtype=np.float32)
    scores[row, column] = pairs["mean_d"]
    return GenePredictions(pd.DataFrame(scores, index=rows, columns=columns), "paper")


def paper_gene_pairs(edges: pd.DataFrame, nodes: pd.DataFrame) -> pd.DataFrame:
    """The gene pairs behind `predict_paper`: `source_gene, target_gene, n_edges, mean_d, mean_abs_d`."""
    latents = pd.MultiIndex.from_frame(nodes[LATENT])
    top = [list(genes)[:N_GENES] for genes in nodes["top_genes"]]
    row = np.repeat(np.arange(len(top)), [len(genes) for genes in top])
    rank = np.concatenate([np.arange(len(genes)) for genes in top]) if len(row) else np.empty(0)
    code, genes = pd.factorize(np.array([gene for listed in top for gene in listed], dtype=object), sort=True)
    shape = (len(latents), len(genes))
    weight = sparse.csr_array((1.0 / (rank + 1), (row, code)), shape=shape)
    member = sparse.csr_array((np.ones(len(row)), (row, code)), shape=shape)
    source, target = (latents.get_indexer(pd.MultiIndex.from_frame(edges[end])) for end in (SOURCE, TARGET))
    known = (source >= 0) & (target >= 0)
    d = edges["cohens_d"].to_numpy(np.float64)[known]

    def pairs(left: sparse.csr_array, values: np.ndarray, right: sparse.csr_array) -> sparse.csr_array:
        between = sparse.csr_array((values, (source[known], target[known])), shape=(len(latents),) * 2)
        return (left.T @ between @ right).tocsr()

    n_edges = pairs(member, np.ones(len(d)), member).tocoo()
    g, j = n_edges.row, n_edges.col
    table = pd.DataFrame({"source_gene": genes[g], "target_gene": genes[j], "n_edges": n_edges.data.astype(int)})
    for name, left, values in (
        ("mean_d", weight, d),
        ("mean_abs_d", weight, np.abs(d)),
        ("only_abs_d", member, np.abs(d)),
    ):
        table[name] = np.asarray(pairs(left, values, left)[g, j]).ravel() / n_edges.data
    # A pair of one edge is kept for its |d|; with two or more it is kept anyway.
    keep = (table["n_edges"] >= 2) | (table["only_abs_d"] > 2)
    keep &= table["source_gene"] != table["target_gene"]
    return table[keep].drop(columns="only_abs_d").reset_index(drop=True)
