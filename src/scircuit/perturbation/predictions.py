"""From edges between latents to what a knock-down of one gene should do to the others.

A knock-down of gene g is read as a partial ablation of the latents that g carries. With L the share of each source
latent's activation that sits at g, E the edges and R a read-out of target latents (or of the model's output) at
genes, the predicted change of gene j is (L^T E R)[g, j]: negative where j should fall.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)

_SOURCE, _TARGET = ["source_layer", "source_feature"], ["target_layer", "target_feature"]
_TOP = 10


@dataclass(frozen=True)
class GenePredictions:
    """Predicted change of each gene (column) when another (row) is knocked down, negative: it falls.

    `scores` is float32 `[knocked-down gene, gene]`, 0 where the circuit says nothing; `definition` names the formula.
    """

    scores: pd.DataFrame
    definition: str

    def table(self) -> pd.DataFrame:
        """Long table `target, gene, score` of the non-zero predictions, largest first within each target."""
        row, column = np.nonzero(self.scores.to_numpy())
        table = pd.DataFrame(
            {
                "target": self.scores.index.to_numpy()[row],
                "gene": self.scores.columns.to_numpy()[column],
                "score": self.scores.to_numpy()[row, column],
            }
        )
        order = table["score"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order].sort_values("target", kind="stable").reset_index(drop=True)


def predict_from_loadings(
    edges: pd.DataFrame, loadings: pd.DataFrame, knocked: pd.Index | None = None
) -> GenePredictions:
    """Predictions through the gene loadings of both ends of every edge (the default definition).

    score[g, j] = sum over edges s -> t of L_s(g) * (mean_delta / clean_sd) * L_t(j), with L_f(g) the share of the
    summed activation of latent f that sits at gene g and the effect in units of the target's clean standard
    deviation. Edges onto targets that never vary in clean cells have no such unit and are left out.

    Parameters
    ----------
    edges : DataFrame
        `circuit.edges`.
    loadings : DataFrame
        `features/genes.parquet`: `layer, feature, gene, n_firings, mean_activation`.
    knocked : Index, optional
        Genes to knock down; all that load on a source by default.

    Raises
    ------
    ScircuitError
        No edge has loadings at both ends, or none of the genes to knock down loads on a source.
    """
    varying = edges["clean_sd"].to_numpy() > 0
    if dropped := int((~varying).sum()):
        log.info("%d edges lead to targets that never vary in clean cells and are left out", dropped)
    edges = edges[varying]
    effect = edges["mean_delta"].to_numpy(np.float64) / edges["clean_sd"].to_numpy(np.float64)
    shares, latents, genes = _shares(loadings)
    source, target = _rows(edges, _SOURCE, latents), _rows(edges, _TARGET, latents)
    known = (source >= 0) & (target >= 0)
    if not known.any():
        raise ScircuitError(
            "no edge has gene loadings at both ends; give the features/genes.parquet of the run that made the edges."
        )
    matrix = sparse.csr_array((effect[known], (source[known], target[known])), shape=(len(latents), len(latents)))
    readout = matrix @ shares
    used = np.unique(source[known])
    return GenePredictions(_rows_of_genes(shares, readout, used, genes, genes, knocked), "loadings")


def predict_from_logits(
    logits: pd.DataFrame, loadings: pd.DataFrame, knocked: pd.Index | None = None
) -> GenePredictions:
    """Predictions through the measured change of the model's own output when sources are ablated.

    score[g, j] = sum over sources s of L_s(g) * change of the output logit of gene j under ablation of s.

    Parameters
    ----------
    logits : DataFrame
        `source_layer, source_feature, gene, mean_delta`: mean change of the logit of `gene`.
    loadings, knocked
        As in `predict_from_loadings`.

    Raises
    ------
    ScircuitError
        A column is missing, or no measured source has loadings.
    """
    missing = [name for name in (*_SOURCE, "gene", "mean_delta") if name not in logits]
    if missing:
        raise ScircuitError(
            f"the table of logit changes has no column {missing[0]!r}; it needs {', '.join(_SOURCE)}, gene, mean_delta."
        )
    shares, latents, genes = _shares(loadings)
    source = _rows(logits, _SOURCE, latents)
    known = source >= 0
    if not known.any():
        raise ScircuitError(
            "no source of the logit table has gene loadings; give the features/genes.parquet of the same run."
        )
    code, names = pd.factorize(logits["gene"].to_numpy()[known])
    value = logits["mean_delta"].to_numpy(np.float64)[known]
    readout = sparse.csr_array((value, (source[known], code)), shape=(len(latents), len(names)))
    used = np.unique(source[known])
    return GenePredictions(_rows_of_genes(shares, readout, used, genes, pd.Index(names), knocked), "logits")


def predict_paper(edges: pd.DataFrame, nodes: pd.DataFrame, knocked: pd.Index | None = None) -> GenePredictions:
    """The published weighting (arXiv 2603.01752): top 10 x top 10 genes of each edge, d / (rank * rank).

    mean_d[g, j] = sum over edges of d / ((i + 1) (k + 1)) / number of edges, g and j being the i-th and k-th top gene
    of source and target; kept where two edges agree on the pair or one has |d| > 2. Identical genes are skipped.
    """
    pairs = paper_gene_pairs(edges, nodes)
    return _scores_from_table(pairs if knocked is None else pairs[pairs["source_gene"].isin(knocked)], "paper")


def paper_gene_pairs(edges: pd.DataFrame, nodes: pd.DataFrame) -> pd.DataFrame:
    """The gene pairs behind `predict_paper`: `source_gene, target_gene, n_edges, mean_d, mean_abs_d`."""
    latents = pd.MultiIndex.from_frame(nodes[["layer", "feature"]])
    top = [list(genes)[:_TOP] for genes in nodes["top_genes"]]
    row = np.repeat(np.arange(len(top)), [len(genes) for genes in top])
    rank = np.concatenate([np.arange(len(genes)) for genes in top]) if len(row) else np.empty(0)
    code, genes = pd.factorize(np.array([gene for listed in top for gene in listed], dtype=object), sort=True)
    shape = (len(latents), len(genes))
    weight = sparse.csr_array((1.0 / (rank + 1), (row, code)), shape=shape)
    member = sparse.csr_array((np.ones(len(row)), (row, code)), shape=shape)
    source, target = _rows(edges, _SOURCE, latents), _rows(edges, _TARGET, latents)
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


def _shares(loadings: pd.DataFrame) -> tuple[sparse.csr_array, pd.MultiIndex, pd.Index]:
    """Share of each latent's summed activation per gene, CSR `[latent, gene]`, with the names of both axes."""
    mass = loadings["n_firings"].to_numpy(np.float64) * loadings["mean_activation"].to_numpy(np.float64)
    if (mass < 0).any():
        raise ScircuitError("gene loadings are negative; give mean activations of firing latents (> 0).")
    latent, latents = pd.MultiIndex.from_frame(loadings[["layer", "feature"]]).factorize(sort=True)
    gene, genes = pd.factorize(loadings["gene"], sort=True)
    matrix = sparse.csr_array((mass, (latent, gene)), shape=(len(latents), len(genes)))
    total = np.asarray(matrix.sum(axis=1)).ravel()
    scaled = sparse.diags_array(1 / np.where(total > 0, total, 1.0)) @ matrix
    return scaled.tocsr(), pd.MultiIndex.from_tuples(list(latents), names=["layer", "feature"]), pd.Index(genes)


def _rows(table: pd.DataFrame, columns: list[str], latents: pd.MultiIndex) -> np.ndarray:
    return latents.get_indexer(pd.MultiIndex.from_frame(table[columns]))


def _rows_of_genes(
    shares: sparse.csr_array,
    readout: sparse.csr_array,
    used: np.ndarray,
    genes: pd.Index,
    readout_genes: pd.Index,
    knocked: pd.Index | None,
) -> pd.DataFrame:
    """L^T (E R) for the wanted genes; a gene says nothing about itself."""
    loads = np.asarray(shares[used].sum(axis=0)).ravel() > 0
    wanted = genes[loads] if knocked is None else genes[loads & genes.isin(knocked)]
    if not len(wanted):
        raise ScircuitError(
            "none of the genes to knock down loads on a source latent of the circuit; use a screen of genes the "
            "model reads, or trace sources that carry them."
        )
    left = shares[used][:, genes.get_indexer(wanted)].T
    scores = (left @ readout[used]).toarray().astype(np.float32)
    frame = pd.DataFrame(scores, index=wanted, columns=readout_genes)
    own = frame.columns.get_indexer(frame.index)
    scores[np.flatnonzero(own >= 0), own[own >= 0]] = 0.0
    return pd.DataFrame(scores, index=wanted, columns=readout_genes)


def _scores_from_table(table: pd.DataFrame, definition: str) -> GenePredictions:
    if table.empty:
        raise ScircuitError(
            "the published weighting predicts no pair of genes for these knock-downs; two edges must agree on a pair, "
            "or one have |d| > 2."
        )
    row, rows = pd.factorize(table["source_gene"], sort=True)
    column, columns = pd.factorize(table["target_gene"], sort=True)
    scores = np.zeros((len(rows), len(columns)), dtype=np.float32)
    scores[row, column] = table["mean_d"]
    return GenePredictions(pd.DataFrame(scores, index=rows, columns=columns), definition)
