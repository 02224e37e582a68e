"""What is added up for the latents of one layer while cells stream by, and the tables it becomes."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.features.accumulate import PairSums, top_per_group
from scircuit.features.cells import TopCells
from scircuit.features.coactivation import Limits, coactivation_table, count_together
from scircuit.sae.base import SparseAutoencoder

QUANTILES = {"q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}

# Activations are counted in logarithmic bins: 16 per octave put a quantile within 2.2 % of its value.
_PER_OCTAVE, _LOWEST, _HIGHEST = 16, -14, 12
_N_BINS = _PER_OCTAVE * (_HIGHEST - _LOWEST)


class LayerSums:
    """Everything that is added up for the latents of one layer."""

    def __init__(
        self, layer: int, n_latents: int, n_genes: int, n_top_cells: int, scratch: Path, limits: Limits | None
    ) -> None:
        self.layer, self.n_latents, self.n_genes = layer, n_latents, n_genes
        self.histogram = np.zeros((n_latents, _N_BINS), dtype=np.int64)
        self.max = np.zeros(n_latents)
        self.n_cells = np.zeros(n_latents, dtype=np.int64)
        self.pairs = PairSums(scratch, f"layer_{layer:02d}")
        self.top_cells = TopCells(n_latents, n_top_cells)
        self.limits = limits
        self.together = PairSums(scratch, f"together_{layer:02d}")

    def add(self, sae: SparseAutoencoder, h: Tensor, batch: TokenBatch, block: int) -> None:
        """Add the residuals `h [position, d_model]` at the gene positions of a batch, `block` at a time."""
        at_gene, cell = batch.is_gene, batch.cell
        gene, row, length = batch.gene[at_gene], np.nonzero(at_gene)[0], at_gene.sum(axis=1)
        fired = np.zeros(self.n_latents * len(cell), dtype=np.int64)
        total = np.zeros(self.n_latents * len(cell))
        for start in range(0, len(gene), block):
            part = slice(start, start + block)
            with torch.inference_mode():
                where, latent, value = sae.encode(h[part].to(sae.W_dec.dtype)).firings()
            self._count(latent, value)
            self.pairs.add(latent * self.n_genes + gene[part][where], value)
            if self.limits is not None:
                self.together.add_pairs(count_together(where, latent, self.n_latents))
            key = latent * len(cell) + row[part][where]
            np.add.at(fired, key, 1)
            np.add.at(total, key, value)
        latent, at = np.divmod(key := np.flatnonzero(fired), len(cell))
        self.n_cells += np.bincount(latent, minlength=self.n_latents)
        self.top_cells.add(latent, cell[at], total[key] / length[at])

    def _count(self, latent: np.ndarray, value: np.ndarray) -> None:
        bins = np.clip(np.floor((np.log2(value) - _LOWEST) * _PER_OCTAVE), 0, _N_BINS - 1).astype(np.int64)
        np.add.at(self.histogram.reshape(-1), latent * _N_BINS + bins, 1)
        np.maximum.at(self.max, latent, value)

    def tables(
        self, names: pd.DataFrame, n_positions: int, min_firings: int, n_top: int
    ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Feature table, gene loadings, top cells and co-activation."""
        pairs = self.pairs.result()
        latent, gene = np.divmod(pairs.key, self.n_genes)
        mean = pairs.total / pairs.n
        n_firings = np.bincount(latent, pairs.n, self.n_latents).astype(np.int64)
        total = np.bincount(latent, pairs.total, self.n_latents)
        symbols = names["symbol"].to_numpy(dtype=object)
        # Ties in the order of the gene table.
        enough = np.flatnonzero(pairs.n >= min_firings)
        best = enough[top_per_group(latent[enough], mean[enough], n_top)]
        cuts = np.searchsorted(latent[best], np.arange(1, self.n_latents))
        features = pd.DataFrame(
            {
                "layer": np.int32(self.layer),
                "feature": np.arange(self.n_latents, dtype=np.int32),
                "frequency": n_firings / max(n_positions, 1),
                "mean_activation": np.divide(total, n_firings, out=np.zeros(self.n_latents), where=n_firings > 0),
                "n_firings": n_firings,
                "n_cells": self.n_cells,
                "top_genes": [part.tolist() for part in np.split(symbols[gene[best]], cuts)],
                **{name: self._quantile(q) for name, q in QUANTILES.items()},
                "max_activation": self.max,
            }
        )
        genes = pd.DataFrame(
            {
                "layer": np.full(len(gene), self.layer, dtype=np.int32),
                "feature": latent.astype(np.int32),
                "gene": as_category(gene, symbols),
                "ensembl_id": as_category(gene, names["ensembl_id"].to_numpy(dtype=object)),
                "n_firings": pairs.n,
                "mean_activation": mean.astype(np.float32),
            }
        )
        limits = self.limits or Limits()
        together = coactivation_table(self.together.result(), n_firings, n_positions, self.layer, limits)
        return features, genes, self.top_cells.table(self.layer), together

    def _quantile(self, q: float) -> np.ndarray:
        """The geometric middle of the bin in which the q-th firing lies; 0 where the latent is dead."""
        cumulative = self.histogram.cumsum(axis=1)
        total = cumulative[:, -1]
        bins = (cumulative < np.ceil(q * total)[:, None]).sum(axis=1)
        return np.where(total > 0, 2.0 ** (_LOWEST + (bins + 0.5) / _PER_OCTAVE), 0.0)


def as_category(row: np.ndarray, names: np.ndarray) -> pd.Categorical:
    """Names of table rows as a categorical: one integer per entry however long the names are."""
    distinct, code = np.unique(names.astype(str), return_inverse=True)
    return pd.Categorical.from_codes(code[row], categories=pd.Index(distinct, dtype=object))
