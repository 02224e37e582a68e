"""Decoys: pushes as large as a source's ablation, where it acts, along directions without meaning.

A latent's removal takes rows r_p = z(p) W_dec from the residual stream. Each decoy takes rows of the same norm instead,
along a direction that is one for all positions and cells of a draw:

`random`: uniform on the sphere, the control of the published follow-up (arXiv 2603.11940, revision). It adds norm where
the removal takes norm away, so a normalisation answers it otherwise.
`radial`: keeps the part of r_p along the residual h_p and draws the rest at random, orthogonal to h_p and as long: the
edited residual has exactly the norm that the ablation leaves, so what a normalisation does to every direction alike is
the same for both and cancels.
`covariance`: drawn from the covariance of the layer's residuals, so that it lies where data lie.
`dictionary`: the decoder row of another live latent.
`encoder_cosine`: keeps the part of the decoder row that the targets it speaks to most read directly, and draws the
rest: what a source does beyond these decoys is not the direct path through the weights.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from scircuit.cells.tokens import TokenStore
from scircuit.models.base import FoundationModel
from scircuit.models.stream import residuals
from scircuit.sae.base import SparseAutoencoder

_CELLS, _SHRINKAGE = 16, 0.1
"""Cells that are looked at, and the share of the identity (of the same trace) mixed into a covariance."""


def radial_rows(removed: Tensor, residual: Tensor, direction: Tensor) -> Tensor:
    """Rows to add, `[position, d_model]`: `removed` with all but its part along `residual` turned to `direction`.

    `removed` are the rows that the ablation adds to `residual`, `[position, d_model]` both; `direction` is `[d_model]`.
    """
    unit = residual / residual.norm(dim=1, keepdim=True)
    own = (removed * unit).sum(dim=1, keepdim=True) * unit
    rest = (removed - own).norm(dim=1, keepdim=True)
    across = direction - (unit @ direction)[:, None] * unit
    return own + rest * across / across.norm(dim=1, keepdim=True)


def residual_roots(model: FoundationModel, cells: TokenStore, layers: Sequence[int], seed: int) -> dict[int, Tensor]:
    """Per layer a matrix A `[d_model, d_model]` (float64, CPU) such that A g has the covariance of the residuals.

    Over gene positions of a seeded sample of cells; the covariance is shrunk towards the identity (Ledoit & Wolf 2004,
    with a fixed share).
    """
    seen: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for layer, h in _sampled(model, cells, layers, seed):
        seen[layer].append(h.cpu().double())
    return {layer: _root(torch.cov(torch.cat(parts).T)) for layer, parts in seen.items()}


def live_latents(
    model: FoundationModel, saes: Mapping[int, SparseAutoencoder], cells: TokenStore, layers: Sequence[int], seed: int
) -> dict[int, list[int]]:
    """Latents of each layer that fire in a seeded sample of cells, ascending."""
    fires = {layer: torch.zeros(saes[layer].n_latents, dtype=torch.bool) for layer in layers}
    for layer, h in _sampled(model, cells, layers, seed):
        latents = saes[layer].encode(h)
        fires[layer][latents.indices[latents.values > 0].cpu()] = True
    return {layer: [int(f) for f in found.nonzero().squeeze(1)] for layer, found in fires.items()}


def encoder_directions(encoders: Sequence[Tensor]) -> Tensor:
    """The encoder rows of several dictionaries (`[d_model, latent]` each) side by side, of unit norm (float64, CPU)."""
    rows = torch.cat([encoder.detach().double().cpu() for encoder in encoders], dim=1)
    return rows / rows.norm(dim=0).clamp_min(1e-12)


def encoder_basis(decoder: Tensor, directions: Tensor) -> Tensor:
    """Orthonormal basis `[d_model, d_model // 4]` (float64, CPU) of the encoders nearest to a decoder row `[d_model]`.

    `directions` as of `encoder_directions`.
    """
    cosine = (decoder.detach().double().cpu() @ directions).abs()
    nearest = cosine.topk(min(len(decoder) // 4, len(cosine))).indices
    return torch.linalg.qr(directions[:, nearest]).Q


def alike_to_encoders(decoder: Tensor, basis: Tensor, drawn: Tensor) -> Tensor:
    """A direction as long as the decoder row with its products with all that `basis` spans, else along `drawn`."""
    row = decoder.detach().double().cpu()
    kept, across = basis @ (basis.T @ row), drawn - basis @ (basis.T @ drawn)
    return kept + across / across.norm() * (row - kept).norm()


@torch.inference_mode()
def _sampled(model: FoundationModel, cells: TokenStore, layers: Sequence[int], seed: int) -> list[tuple[int, Tensor]]:
    """Residuals at the gene positions of some cells, `[position, d_model]` per (cell, layer)."""
    rng = np.random.default_rng([seed, 8])
    rows = np.sort(rng.choice(len(cells), min(_CELLS, len(cells)), replace=False))
    found = []
    for batch in cells.batches(1, cells=rows, by_length=False):
        for layer, h in residuals(model, batch, sorted(layers)).items():
            found.append((layer, h[torch.from_numpy(batch.is_gene).to(h.device)]))
    return found


def _root(covariance: Tensor) -> Tensor:
    level = covariance.diagonal().mean()
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    return torch.linalg.cholesky((1 - _SHRINKAGE) * covariance + _SHRINKAGE * level * identity)
