"""What latents of different layers do together without any intervention: common firings, activation per cell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from scircuit._progress import progress
from scircuit.cells.batch import TokenBatch
from scircuit.models.base import FoundationModel
from scircuit.models.stream import gene_rows
from scircuit.sae.adapter import as_saes
from scircuit.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class Across:
    """What one pass over cells saw."""

    pmi: pd.DataFrame
    """`source_layer, source_feature, target_layer, target_feature, n_both, pmi`: every source with every latent of a
    later layer that fired with it at least once; PMI = log2(p_ab / (p_a p_b)) over gene positions."""
    activations: dict[int, np.ndarray]
    """Layer to float32 `[cell, latent]`: mean activation over the cell's gene positions."""


@torch.inference_mode()
def watch_across(
    model: FoundationModel,
    batches: Iterable[TokenBatch],
    saes: Mapping[int, Any],
    sources: Mapping[int, Sequence[int]],
    cells: np.ndarray,
) -> Across:
    """Count common firings of sources and later latents, and sum activations per cell.

    `batches` hold each of `cells` (values of `TokenBatch.cell`, in the order of the rows of `activations`) once; `saes`
    are of any library. Memory grows with the number of sources times the latents above them.
    """
    saes = as_saes(saes)
    layers = list(saes)
    size = {layer: sae.n_latents for layer, sae in saes.items()}
    chosen = {layer: np.asarray(sorted(sources.get(layer, ())), dtype=np.int64) for layer in layers}
    pairs = [(a, b) for a in layers for b in layers if a < b and len(chosen[a])]
    both = {(a, b): np.zeros((len(chosen[a]), size[b]), dtype=np.int64) for a, b in pairs}
    fired = {layer: np.zeros(size[layer], dtype=np.int64) for layer in layers}
    total = {layer: np.zeros((len(cells), size[layer]), dtype=np.float32) for layer in layers}
    row_of = pd.Series(np.arange(len(cells)), index=cells)
    n_positions = np.zeros(len(cells), dtype=np.int64)
    for rows, _, cell in gene_rows(model, progress(batches, desc="pairs", unit="batch"), layers):
        at = row_of.loc[cell].to_numpy()
        n_positions += np.bincount(at, minlength=len(cells))
        of_cell = sparse.csr_matrix((np.ones(len(at)), (at, np.arange(len(at)))), shape=(len(cells), len(at)))
        fires = {}
        for layer in layers:
            active = _active(saes[layer], rows[layer])
            total[layer] += (of_cell @ active).toarray().astype(np.float32)
            fires[layer] = (active > 0).astype(np.int32)
            fired[layer] += np.asarray(fires[layer].sum(axis=0)).ravel()
        for a, b in pairs:
            both[a, b] += (fires[a][:, chosen[a]].T @ fires[b]).toarray()
    n = int(n_positions.sum())
    tables = [_pmi_table(a, b, chosen[a], both[a, b], fired, n) for a, b in pairs]
    mean = {layer: t / np.maximum(n_positions, 1)[:, None].astype(np.float32) for layer, t in total.items()}
    return Across(pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), mean)


def _active(sae: SparseAutoencoder, h: torch.Tensor) -> sparse.csr_matrix:
    """Activations `[position, latent]`."""
    row, latent, value = sae.encode(h.to(sae.W_dec.dtype)).firings()
    return sparse.csr_matrix((value, (row, latent)), shape=(len(h), sae.n_latents))


def _pmi_table(
    a: int, b: int, sources: np.ndarray, both: np.ndarray, fired: Mapping[int, np.ndarray], n: int
) -> pd.DataFrame:
    row, target = np.nonzero(both)
    n_both = both[row, target]
    expected = fired[a][sources[row]].astype(np.float64) * fired[b][target]
    return pd.DataFrame(
        {
            "source_layer": np.int16(a),
            "source_feature": sources[row].astype(np.int32),
            "target_layer": np.int16(b),
            "target_feature": target.astype(np.int32),
            "n_both": n_both,
            "pmi": np.log2(n_both * (n / expected)),
        }
    )
