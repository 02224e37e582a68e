"""Copies of one cell walked up the stack side by side, each edited at several layers on its way.

An `Edit` acts at one layer. Some questions need more: ablations at different layers, where the later one removes
what is there after the earlier one, or a mediator held at its clean value while its source is gone. A copy is then
a list of steps; copy 0 is the clean cell, in the same batch, so that a copy without an effect differs by exactly 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.models.base import FoundationModel
from scircuit.sae.base import SparseAutoencoder
from scircuit.sae.latents import Latents


class Step(NamedTuple):
    """What is done to some latents of one layer at every gene position.

    `ablate`: z, encoded from the copy as it arrives there (so after its earlier steps), becomes 0. `hold`: z becomes
    its clean value.
    """

    layer: int
    features: tuple[int, ...]
    action: str = "ablate"


Copy = tuple[Step, ...]


@torch.inference_mode()
def walk(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    batch: TokenBatch,
    h: Tensor,
    layer: int,
    copies: Sequence[Copy],
    stop: int,
) -> Iterator[tuple[int, Tensor]]:
    """Yield `(i, residual [1 + copy, position, d_model])` for i = layer .. stop, edited by the steps of layer i.

    `batch` holds one cell and `h` `[position, d_model]` its clean residual after `layer`, the lowest of any step.
    """
    many = batch.take(np.zeros(1 + len(copies), dtype=np.int64))
    genes = torch.from_numpy(batch.is_gene[0]).to(h.device).nonzero().squeeze(1)
    state = h.repeat(1 + len(copies), 1, 1)
    for i in range(layer, stop + 1):
        if i > layer:
            state = model.layer(i, state, many)
        steps = [(row, step) for row, copy in enumerate(copies, 1) for step in copy if step.layer == i]
        if steps:
            state = _edited(state, saes[i], genes, steps)
        yield i, state


def _edited(state: Tensor, sae: SparseAutoencoder, genes: Tensor, steps: Sequence[tuple[int, Step]]) -> Tensor:
    rows = [0, *sorted({row for row, _ in steps})]
    encoded = sae.encode(state[rows][:, genes].flatten(0, 1))
    values, indices = (x.view(len(rows), len(genes), -1) for x in encoded)
    latents = {row: Latents(values[n], indices[n]) for n, row in enumerate(rows)}
    state = state.clone()
    for row, step in steps:
        for feature in step.features:
            change = -latents[row].column(feature)
            if step.action == "hold":
                change = change + latents[0].column(feature)
            state[row, genes] += change[:, None] * sae.W_dec[feature].detach()
    return state


def mean_change(sae: SparseAutoencoder, state: Tensor, positions: Tensor) -> Tensor:
    """Activation of each copy minus that of the clean cell, mean over `positions`: float64 `[copy, latent]`.

    Exactly 0 where a copy does not differ from the clean cell.
    """
    latents: Latents = sae.encode(state[:, positions].flatten(0, 1))
    dense = torch.zeros(len(state), sae.n_latents, dtype=torch.float64)
    copy = torch.arange(len(state)).repeat_interleave(len(positions))
    flat = copy[:, None] * sae.n_latents + latents.indices.cpu()
    dense.view(-1).index_add_(0, flat.reshape(-1), latents.values.cpu().double().reshape(-1))
    dense /= len(positions)
    same = (state[1:, positions] == state[0, positions]).flatten(1).all(dim=1).cpu()
    return torch.where(same[:, None], 0.0, dense[1:] - dense[0])
