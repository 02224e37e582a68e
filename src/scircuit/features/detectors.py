"""How many latents detect a single gene: token identity, which nobody should mistake for biology."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scircuit._progress import progress
from scircuit.cells.batch import TokenBatch
from scircuit.features.accumulate import PairSums
from scircuit.models.base import FoundationModel
from scircuit.models.stream import gene_rows
from scircuit.sae.adapter import as_saes


@torch.inference_mode()
def one_gene_shares(
    model: FoundationModel, saes: Mapping[int, Any], batches: Iterable[TokenBatch], *, threshold: float = 0.5
) -> dict[int, float]:
    """Per layer, the share of live latents with more than `threshold` of their activation on one gene.

    Activation is summed over all positions that hold a gene. NaN where no latent of a layer fires. `saes` are
    dictionaries of any library (`as_sae`).
    """
    saes = as_saes(saes)
    n_genes = len(model.genes)
    with tempfile.TemporaryDirectory(prefix="scircuit_detectors_") as scratch:
        sums = {layer: PairSums(Path(scratch), f"layer_{layer:02d}") for layer in saes}
        seen = progress(batches, desc="one-gene latents", unit="batch")
        for rows, gene, _ in gene_rows(model, seen, list(saes)):
            for layer, sae in saes.items():
                at, latent, value = sae.encode(rows[layer].to(sae.W_dec.dtype)).firings()
                sums[layer].add(latent * n_genes + gene[at], value)
        return {layer: _share(s, n_genes, saes[layer].W_dec.shape[0], threshold) for layer, s in sums.items()}


def _share(sums: PairSums, n_genes: int, n_latents: int, threshold: float) -> float:
    pairs = sums.result()
    latent = pairs.key // n_genes
    total = np.bincount(latent, pairs.total, n_latents)
    top = np.zeros(n_latents)
    np.maximum.at(top, latent, pairs.total)
    live = total > 0
    return float((top[live] > threshold * total[live]).mean()) if live.any() else float("nan")
