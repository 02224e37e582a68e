"""From edges between latents to what a knock-down of one gene should do to the others.

A knock-down of gene g is read as a partial ablation of the latents that g carries. With L the share of each source
latent's activation that sits at g, E the edges and R a read-out of target latents (or of the model's output) at
genes, the predicted change of gene j is (L^T E R)[g, j]: negative where j should fall.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.circuits.schema import LATENT, SOURCE, TARGET
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)


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
    summed activation of latent f that sits at gene g and the effect in units of the target's clean standard deviation.
    Edges onto targets that never vary in clean cells have no such unit and are left out.

    `edges` are a circuit's, `loadings` is `features/genes.parquet`; by default all genes that load on a source are
    `knocked` down.
    """
    varying = edges["clean_sd"].to_numpy() > 0
    if dropped := int((~varying).sum()):
        log.info("%d edges lead to targets that never vary in clean cells and are left out", dropped)
    edges = edges[varying]
    effect = edges["mean_delta"].to_numpy(np.float64) / edges["clean_sd"].to_numpy(np.float64)
    shares = _Shares.of(loadings)
    source, target = shares.rows(edges[SOURCE]), shares.rows(edges[TARGET])
    known = (source >= 0) & (target >= 0)
    if not known.any():
        raise ScircuitError(
            "no edge has gene loadings at both ends; give the features/genes.parquet of the run that made the edges."
        )
    shape = (len(shares.latents), len(shares.latents))
    matrix = sparse.csr_array((effect[known], (source[known], target[known])), shape=shape)
    scores = shares.read_out(matrix @ shares.matrix, shares.genes, source[known], knocked)
    return GenePredictions(scores, "loadings")


def predict_from_logits(
    logits: pd.DataFrame, loadings: pd.DataFrame, knocked: pd.Index | None = None
) -> GenePredictions:
    """Predictions through the measured change of the model's own output when sources are ablated.

    score[g, j] = sum over sources s of L_s(g) * change of the output logit of gene j under ablation of s. `logits` is
    `trace/logits.parquet`; the others as in `predict_from_loadings`.
    """
    missing = [name for name in (*SOURCE, "gene", "mean_delta") if name not in logits]
    if missing:
        raise ScircuitError(
            f"the table of logit changes has no column {missing[0]!r}; it needs {', '.join(SOURCE)}, gene, mean_delta."
        )
    shares = _Shares.of(loadings)
    source = shares.rows(logits[SOURCE])
    known = source >= 0
    if not known.any():
        raise ScircuitError(
            "no source of the logit table has gene loadings; give the features/genes.parquet of the same run."
        )
    code, names = pd.factorize(logits["gene"].to_numpy()[known])
    value = logits["mean_delta"].to_numpy(np.float64)[known]
    readout = sparse.csr_array((value, (source[known], code)), shape=(len(shares.latents), len(names)))
    return GenePredictions(shares.read_out(readout, pd.Index(names), source[known], knocked), "logits")


class _Shares(NamedTuple):
    """Share of each latent's summed activation per gene, CSR `[latent, gene]`, with the names of both axes."""

    matrix: sparse.csr_array
    latents: pd.MultiIndex
    genes: pd.Index

    @classmethod
    def of(cls, loadings: pd.DataFrame) -> "_Shares":
        mass = loadings["n_firings"].to_numpy(np.float64) * loadings["mean_activation"].to_numpy(np.float64)
        if (mass < 0).any():
            raise ScircuitError("gene loadings are negative; give mean activations of firing latents (> 0).")
        latent, latents = pd.MultiIndex.from_frame(loadings[LATENT]).factorize(sort=True)
        gene, genes = pd.factorize(loadings["gene"], sort=True)
        matrix = sparse.csr_array((mass, (latent, gene)), shape=(len(latents), len(genes)))
        total = np.asarray(matrix.sum(axis=1)).ravel()
        scaled = sparse.diags_array(1 / np.where(total > 0, total, 1.0)) @ matrix
        return cls(scaled.tocsr(), pd.MultiIndex.from_tuples(list(latents), names=LATENT), pd.Index(genes))

    def rows(self, ends: pd.DataFrame) -> np.ndarray:
        """Row of each latent (its layer and feature), -1 where it loads on no gene."""
        return self.latents.get_indexer(pd.MultiIndex.from_frame(ends))

    def read_out(
        self, readout: sparse.csr_array, names: pd.Index, sources: np.ndarray, knocked: pd.Index | None
    ) -> pd.DataFrame:
        """L^T (E R) for the wanted genes, E R being `readout` `[latent, name]`; a gene says nothing about itself."""
        used = np.unique(sources)
        loads = np.asarray(self.matrix[used].sum(axis=0)).ravel() > 0
        wanted = self.genes[loads] if knocked is None else self.genes[loads & self.genes.isin(knocked)]
        if not len(wanted):
            raise ScircuitError(
                "none of the genes to knock down loads on a source latent of the circuit; use a screen of genes the "
                "model reads, or trace sources that carry them."
            )
        left = self.matrix[used][:, self.genes.get_indexer(wanted)].T
        scores = (left @ readout[used]).toarray().astype(np.float32)
        own = names.get_indexer(wanted)
        scores[np.flatnonzero(own >= 0), own[own >= 0]] = 0.0
        return pd.DataFrame(scores, index=wanted, columns=names)
