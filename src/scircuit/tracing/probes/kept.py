"""A circuit alone: the model with all latents silenced but those that are kept, layer by layer, exactly.

At every layer with a dictionary the copy is encoded as it arrives there, so after all that was silenced before, and
each latent that is not kept goes to 0 or to its mean at every gene position. The edit adds differences to the residual,
so what the dictionary does not reconstruct (its error) stays, unless it is taken away by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scircuit.cells.batch import TokenBatch
from scircuit.circuits.variants import Variant
from scircuit.models.base import FoundationModel
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.probes.walk import gene_positions
from scircuit.tracing.setup import Setup

Means = Mapping[int, Tensor]
"""Per layer the mean activation of each latent over gene positions, `[latent]`."""
Read = Callable[[Tensor], Tensor]
"""A scalar for each copy, from residuals `[copy, position, d_model]` of which the first is the clean cell."""


class KeptSets:
    """Which latents each variant keeps, as masks on the device; row 0 is the clean cell, which keeps everything."""

    def __init__(self, setup: Setup, variants: Sequence[Variant], means: Means, below: int) -> None:
        device = setup.model.device
        self.below, self.n = below, 1 + len(variants)
        self.saes = {layer: sae for layer, sae in sorted(setup.saes.items()) if layer < below}
        self.means = {layer: means[layer].to(device, sae.W_dec.dtype) for layer, sae in self.saes.items()}
        self.masks = {layer: _mask(variants, layer, sae.n_latents).to(device) for layer, sae in self.saes.items()}
        self.by_mean = torch.tensor([False, *(v.ablation == "mean" for v in variants)], device=device)
        self.no_error = torch.tensor([False, *(v.error == "ablated" for v in variants)], device=device)

    def edited(self, layer: int, h: Tensor, genes: Tensor, which: Tensor) -> Tensor:
        """The residual `[copy, position, d_model]` after the edit of one layer; `which` are the copies' rows here."""
        sae, keep = self.saes[layer], self.masks[layer][which]
        rows = h[:, genes]
        latents = sae.encode(rows.flatten(0, 1))
        of_row = torch.arange(len(h), device=h.device).repeat_interleave(len(genes))
        lost = torch.where(keep[of_row[:, None], latents.indices], 0, -latents.values).to(sae.W_dec.dtype)
        change = functional.embedding_bag(latents.indices, sae.W_dec, per_sample_weights=lost, mode="sum")
        change = change.view(len(h), len(genes), -1)
        put_back = torch.where(keep, 0, self.means[layer]) * self.by_mean[which, None]
        change = change + (put_back @ sae.W_dec)[:, None]
        if bool(self.no_error[which].any()):
            error = rows.to(change.dtype) - sae.decode(latents).view(change.shape)
            change = change - error * self.no_error[which, None, None]
        h = h.clone()
        h[:, genes] += change.to(h.dtype)
        return h


def _mask(variants: Sequence[Variant], layer: int, n_latents: int) -> Tensor:
    mask = np.ones((1 + len(variants), n_latents), dtype=bool)
    for row, variant in enumerate(variants, 1):
        mask[row] = variant.removed
        mask[row, variant.members[variant.members[:, 0] == layer, 1]] = not variant.removed
    return torch.from_numpy(mask)


@torch.inference_mode()
def read_kept(model: FoundationModel, batch: TokenBatch, sets: KeptSets, read: Read, tokens: int) -> np.ndarray:
    """What `read` says of one cell under every variant, float64 `[1 + variant]`; the first is the clean cell.

    About `tokens` positions are propagated at once.
    """
    genes = gene_positions(batch, model.device)
    values = np.empty(sets.n)
    first = min((layer for layer in sets.saes), default=sets.below)
    stem = model.embed(batch)
    for layer in range(min(first, model.n_layers - 1) + 1):
        stem = model.layer(layer, stem, batch)
    for some in _chunks(sets.n, max(1, tokens // batch.tokens.shape[1] - 1)):
        which = torch.tensor([0, *some], device=model.device)
        many = batch.take(np.zeros(len(which), dtype=np.int64))
        h = stem.expand(len(which), -1, -1)
        for layer in range(first, min(sets.below, model.n_layers - 1) + 1):
            h = h if layer == first else model.layer(layer, h, many)
            h = sets.edited(layer, h, genes, which) if layer in sets.saes else h
        said = read(h).cpu().double().numpy()
        values[0], values[some] = said[0], said[1:]
    return values


def _chunks(n: int, size: int) -> Iterator[list[int]]:
    """Rows 1 to n - 1 in groups; one empty group where there are none, for the clean cell alone."""
    yield from ([*range(start, min(start + size, n))] for start in range(1, max(n, 2), size))


def position_means(saes: Mapping[int, SparseAutoencoder], rates: Mapping[int, np.ndarray]) -> dict[int, Tensor]:
    """`Means` from firing rate x mean activation per layer."""
    return {layer: torch.from_numpy(np.asarray(rates[layer], dtype=np.float32)) for layer in saes}
