"""Activation of every latent in every cell: the cells as an AnnData room sees them, with latents in place of genes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse

from scircuit._progress import progress
from scircuit.cells.tokens import TokenStore
from scircuit.models.base import FoundationModel
from scircuit.models.stream import gene_rows
from scircuit.sae.adapter import as_saes


def cell_activations(
    model: FoundationModel,
    cells: TokenStore,
    saes: Mapping[int, Any],
    *,
    batch_size: int = 8,
    rows_per_block: int = 8192,
) -> dict[int, sparse.csr_matrix]:
    """Mean activation over a cell's gene positions, silent ones included: float32 `[cell, latent]` for each layer.

    Cells are in the order of `cells`; `saes` may be of any library (`sae.adapter.as_sae`). What is kept is what fires.
    """
    saes = as_saes(saes)
    parts: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {layer: [] for layer in saes}
    n_positions = np.zeros(len(cells))
    batches = cells.batches(batch_size)
    streamed = gene_rows(model, batches, list(saes))
    for rows, _, cell in progress(streamed, desc="activations", unit="batch", total=len(batches)):
        n_positions += np.bincount(cell, minlength=len(cells))
        for layer, sae in saes.items():
            for start in range(0, len(cell), rows_per_block):
                block = slice(start, start + rows_per_block)
                with torch.inference_mode():
                    row, latent, value = sae.encode(rows[layer][block]).firings()
                parts[layer].append(_summed(cell[block][row], latent, value, sae.n_latents))
    found = {}
    for layer, of_layer in parts.items():
        at, latent, total = (np.concatenate(arrays) for arrays in zip(*of_layer, strict=True))
        shape = (len(cells), saes[layer].n_latents)
        found[layer] = sparse.csr_matrix(((total / n_positions[at]).astype(np.float32), (at, latent)), shape=shape)
    return found


def _summed(
    cell: np.ndarray, latent: np.ndarray, value: np.ndarray, n_latents: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell, latent and sum of the activations of each (cell, latent) that fires."""
    keys, inverse = np.unique(cell.astype(np.int64) * n_latents + latent, return_inverse=True)
    return keys // n_latents, keys % n_latents, np.bincount(inverse, value, len(keys))
