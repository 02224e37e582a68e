"""Integrated gradients of a behaviour over every latent of every layer, by one backward pass per cell.

The path is that of the ablation itself: at step a every latent of every layer is a of what it is as the run arrives
there plus 1 - a of its mean, so a = 1 is the model and a = 0 the model with every latent silenced. The gradient with
respect to the edit of a layer holds whatever later layers make of it, encoders included; so the attributions of all
latents add up to m(model) - m(all silenced), but for the error of the steps and the jumps of TopK on the way.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from scircuit._progress import progress
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.sae.base import SparseAutoencoder
from scircuit.sae.latents import Latents
from scircuit.tracing.probes.behaviours import Asked, Behaviour
from scircuit.tracing.probes.kept import Means
from scircuit.tracing.probes.walk import gene_positions
from scircuit.tracing.setup import Setup

STEPS = 5
"""Of the integral, by Gauss and Legendre's rule; side by side in one pass."""


class _Tap:
    """One layer of one pass: what is encoded there, and the edit, by whose gradient the latents are told."""

    def __init__(self, latents: Latents, edit: Tensor) -> None:
        self.latents, self.edit = latents, edit


def attributions(setup: Setup, behaviour: Behaviour, means: Means, steps: int = STEPS) -> pd.DataFrame:
    """`layer, feature, attribution` of every latent that has a say: sum over positions, mean over the setup's cells."""
    cells = setup.cells
    saes = {layer: sae for layer, sae in sorted(setup.saes.items()) if layer < behaviour.below}
    total = {layer: torch.zeros(sae.n_latents, dtype=torch.float64) for layer, sae in saes.items()}
    n = 0
    for batch in progress(cells.batches(1, by_length=False), total=len(cells), desc="attribution", unit="cell"):
        asked = behaviour.ask(batch)
        if asked is None:
            continue
        n += 1
        for layer, found in _of_cell(setup.model, saes, asked, means, behaviour.below, steps).items():
            total[layer] += found
    if not n:
        raise ScircuitError("No cell can be asked for this behaviour; choose another, or other cells.")
    parts = [
        pd.DataFrame({"layer": layer, "feature": np.arange(len(sums)), "attribution": (sums / n).numpy()})
        for layer, sums in total.items()
    ]
    return pd.concat(parts, ignore_index=True)


@torch.inference_mode(False)
def _of_cell(
    model: FoundationModel, saes: dict[int, SparseAutoencoder], asked: Asked, means: Means, below: int, steps: int
) -> dict[int, Tensor]:
    """Float64 `[latent]` per layer, summed over positions."""
    batch, genes = asked.batch, gene_positions(asked.batch, model.device)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    lost = torch.tensor([0.0, *(nodes + 1) / 2], dtype=torch.float64).to(model.device, model.dtype)
    many = batch.take(np.zeros(steps + 1, dtype=np.int64))
    taps: dict[int, _Tap] = {}
    with torch.enable_grad():
        h = model.embed(many)
        for layer in range(min(below, model.n_layers - 1) + 1):
            h = model.layer(layer, h, many)
            if layer in saes:
                h, taps[layer] = _attenuated(saes[layer], h, genes, lost, means[layer].to(h.device, h.dtype))
        # Each step counts by its weight, which sums to 1 over the unit interval.
        said = asked.read(h)[1:]
        said = said @ torch.from_numpy(weights / 2).to(said.device, said.dtype)
        gradients = torch.autograd.grad(said, [tap.edit for tap in taps.values()])
    return {
        layer: _shares(saes[layer], tap.latents, gradient[1:], means[layer])
        for (layer, tap), gradient in zip(taps.items(), gradients, strict=True)
    }


def _attenuated(sae: SparseAutoencoder, h: Tensor, genes: Tensor, lost: Tensor, mean: Tensor) -> tuple[Tensor, _Tap]:
    """Every latent brought the share `lost` of the way to its mean, `[copy]`."""
    latents = sae.encode(h[:, genes].flatten(0, 1))
    own = functional.embedding_bag(latents.indices, sae.W_dec, per_sample_weights=latents.values, mode="sum")
    change = (mean.to(sae.W_dec.dtype) @ sae.W_dec) - own.view(len(h), len(genes), -1)
    edit = torch.zeros_like(change).requires_grad_() + lost.to(change.dtype)[:, None, None] * change
    edited = h.index_add(1, genes, edit.to(h.dtype))
    return edited, _Tap(Latents(latents.values.detach(), latents.indices), edit)


def _shares(sae: SparseAutoencoder, latents: Latents, gradient: Tensor, mean: Tensor) -> Tensor:
    """Of each latent the gradient along its decoder row times what it has above its mean."""
    n_copies, n_genes, _ = gradient.shape
    values = latents.values.view(n_copies + 1, n_genes, -1)[1:]
    indices = latents.indices.view(n_copies + 1, n_genes, -1)[1:]
    out = torch.zeros(sae.n_latents, dtype=torch.float64)
    for z, of, g in zip(values, indices, gradient.to(sae.W_dec.dtype), strict=True):
        along = torch.einsum("pd,pkd->pk", g, sae.W_dec[of].detach())
        out.index_add_(0, of.flatten().cpu(), (along * z).flatten().cpu().double())
    slope = gradient.to(sae.W_dec.dtype).sum(dim=(0, 1)) @ sae.W_dec.detach().T
    return out - slope.cpu().double() * mean.cpu().double()
