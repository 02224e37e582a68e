"""The readable oracle: one cell, one edit, a full forward pass; every fast engine must equal it.

The published procedure (arXiv 2603.01752): run the model, edit the residual stream after the
source layer in passing, run on, encode every gene position of every later layer on both sides, subtract, and
average over the positions that were edited; what lies under the numerical floor (`tracing.floor`) is 0. Attention is
written out, as in the published code ("eager"), so that the oracle shares no fused kernel with the engines.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.engines.interventions import Edit
from scircuit.tracing.floor import Floor


def forward(
    model: FoundationModel, batch: TokenBatch, layer: int | None = None, edit: Edit | None = None
) -> list[Tensor]:
    """Residuals `[1, position, d_model]` after every layer of one cell, edited after `layer` if asked."""
    h, out = model.embed(batch), []
    for i in range(model.n_layers):
        h = _layer(model, i, h, batch)
        if edit is not None and i == layer:
            h = h.clone()
            h[0, edit.positions] += edit.rows
        out.append(h)
    return out


def _layer(model: FoundationModel, i: int, h: Tensor, batch: TokenBatch) -> Tensor:
    """Layer i with its attention written out; as the model runs it where that shows no blocks."""
    if not isinstance(model, BlockStack):
        return model.layer(i, h, batch)
    block, mask = model.block(i), model.key_mask(batch)
    q, k, v = block.heads(h)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return block.finish(h, block.merge(scores.softmax(dim=-1) @ v))


@torch.inference_mode()
def naive_response(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    batch: TokenBatch,
    layer: int,
    edit: Edit,
    targets: Sequence[int],
    clean: list[Tensor] | None = None,
) -> dict[int, Tensor]:
    """Change of every latent of each target layer, float64 `[latent]`, averaged over the edited positions.

    `batch` holds one cell; `clean` takes its `forward(model, batch)` when that was already computed.
    """
    before = forward(model, batch) if clean is None else clean
    after = forward(model, batch, layer, edit)
    responses = {}
    for target in targets:
        sae = saes[target]
        z0 = sae.encode(before[target][0]).dense(sae.n_latents)
        z1 = sae.encode(after[target][0]).dense(sae.n_latents)
        difference = z1[edit.positions].double() - z0[edit.positions].double()
        floor, at_rest = Floor.of(sae, before[target].dtype), before[target][0, edit.positions]
        responses[target] = floor.apply(difference.mean(dim=0, keepdim=True), at_rest)[0]
    return responses
