"""Copies of one cell walked up the stack side by side, each edited at several layers on its way.

An `Edit` acts at one layer. Some questions need more: ablations at different layers, where the later one removes
what is there after the earlier one, or a mediator held at its clean value while its source is gone. A copy is then
a list of steps.

Copies with the same history are one sequence: all start as the clean cell and part where a step changes something.
So a copy that no step has changed is the clean cell, and two copies that differ only by a step without effect are
the same, to the last bit and on every machine, though kernels may give a row other last bits at another place in
the batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.sae.base import SparseAutoencoder
from scircuit.sae.latents import Latents
from scircuit.tracing.floor import Floor, in_float64
from scircuit.tracing.setup import Setup


class Step(NamedTuple):
    """What is done to some latents of one layer at every gene position.

    `ablate`: z, encoded from the copy as it arrives there (so after its earlier steps), becomes 0. `hold`: z becomes
    its clean value.
    """

    layer: int
    features: tuple[int, ...]
    action: str = "ablate"


Copy = tuple[Step, ...]
Source = tuple[int, int]
"""(layer, latent)."""


class State(NamedTuple):
    """The residual after one layer: `h` `[sequence, position, d_model]`, `of_copy` int64 `[1 + copy]`.

    Sequence 0 is the clean cell, as is copy 0; `of_copy` says which sequence each copy is.
    """

    h: Tensor
    of_copy: np.ndarray


@torch.inference_mode()
def walk(
    setup: Setup, batch: TokenBatch, h: Tensor, layer: int, copies: Sequence[Copy], stop: int
) -> Iterator[tuple[int, State]]:
    """Yield `(i, state)` for i = layer .. stop, edited by the steps of layer i.

    `batch` holds one cell and `h` `[position, d_model]` its clean residual after `layer`, the lowest of any step.
    """
    genes = gene_positions(batch, h.device)
    state, many = State(h[None], np.zeros(1 + len(copies), dtype=np.int64)), batch
    for i in range(layer, stop + 1):
        if i > layer:
            # The same object while its size holds: a hooked model runs a forward for each new batch.
            many = many if len(many) == len(state.h) else batch.take(np.zeros(len(state.h), dtype=np.int64))
            state = state._replace(h=setup.model.layer(i, state.h, many))
        steps = [[step for step in copy if step.layer == i] for copy in ((), *copies)]
        if any(steps):
            state = _edited(state, setup.saes[i], genes, steps)
        yield i, state


def _edited(state: State, sae: SparseAutoencoder, genes: Tensor, steps: Sequence[Sequence[Step]]) -> State:
    """One sequence for each pair of (sequence before, changes made to it) that any copy has."""
    needed = [0, *sorted({int(s) for s, mine in zip(state.of_copy, steps, strict=True) if mine} - {0})]
    encoded = sae.encode(state.h[needed][:, genes].flatten(0, 1))
    values, indices = (x.view(len(needed), len(genes), -1) for x in encoded)
    latents = {sequence: Latents(values[n], indices[n]) for n, sequence in enumerate(needed)}

    def change(sequence: int, feature: int, action: str) -> Tensor:
        """What is added to the activation of one latent, `[gene position]`; holding the clean cell adds exactly 0."""
        removed = -latents[sequence].column(feature)
        return removed + latents[0].column(feature) if action == "hold" else removed

    new: dict[tuple[int, tuple[tuple[int, str], ...]], int] = {(0, ()): 0}
    rows, of_copy = [state.h[0]], np.zeros_like(state.of_copy)
    for copy, (sequence, mine) in enumerate(zip(state.of_copy.tolist(), steps, strict=True)):
        changes = {(f, step.action): change(sequence, f, step.action) for step in mine for f in step.features}
        acting = {key: z for key, z in changes.items() if bool(z.any())}
        key = (sequence, tuple(acting))
        if key not in new:
            new[key] = len(rows)
            row = state.h[sequence].clone()
            for (feature, _), z in acting.items():
                row[genes] += z[:, None] * sae.W_dec[feature].detach()
            rows.append(row)
        of_copy[copy] = new[key]
    return State(torch.stack(rows), of_copy)


def gene_positions(batch: TokenBatch, device: torch.device) -> Tensor:
    """Gene positions of the first cell of a batch, ascending."""
    return torch.from_numpy(batch.is_gene[0]).to(device).nonzero().squeeze(1)


def firing_positions(setup: Setup, batch: TokenBatch, h: Mapping[int, Tensor], members: Sequence[Source]) -> Tensor:
    """Gene positions at which any member fires in the clean cell, ascending; `h` are its residuals by layer."""
    genes = gene_positions(batch, next(iter(h.values())).device)
    fires = torch.zeros(len(genes), dtype=torch.bool, device=genes.device)
    for layer in {layer for layer, _ in members}:
        latents = setup.saes[layer].encode(h[layer][0, genes])
        for feature in (f for at, f in members if at == layer):
            fires |= latents.column(feature) > 0
    return genes[fires]


def mean_change(sae: SparseAutoencoder, state: State, positions: Tensor, copies: Sequence[int]) -> Tensor:
    """Activation of some copies minus that of the clean cell, mean over `positions`: float64 `[copy, latent]`.

    Exactly 0 for a copy that is the clean cell, and under the numerical floor.
    """
    sequences, row = np.unique([0, *state.of_copy[list(copies)]], return_inverse=True)
    h = state.h[sequences.tolist()][:, positions]
    latents: Latents = sae.encode(h.flatten(0, 1))
    values = in_float64(latents.values).cpu()
    dense = values.new_zeros(len(h), sae.n_latents)
    of_row = torch.arange(len(h)).repeat_interleave(len(positions))
    flat = of_row[:, None] * sae.n_latents + latents.indices.cpu()
    dense.view(-1).index_add_(0, flat.reshape(-1), values.reshape(-1))
    change = Floor.of(sae, h.dtype).apply((dense - dense[0]) / len(positions), h[0])
    # A sequence whose rows are the clean ones bit for bit changes nothing, wherever it stood in the batch.
    same = (h == h[0]).flatten(1).all(dim=1).cpu()
    return torch.where(same[:, None], 0.0, change)[torch.from_numpy(row[1:])]
