"""Walking the residual stream of any `FoundationModel`: up to a layer, or on from one."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel


@torch.inference_mode()
def residuals(model: FoundationModel, batch: TokenBatch, layers: Iterable[int]) -> dict[int, Tensor]:
    """Residual stream `[cell, position, d_model]` after each of `layers`; stops at the deepest."""
    wanted = check_layers(model, layers)
    out: dict[int, Tensor] = {}
    h = model.embed(batch)
    for i in range(max(wanted) + 1):
        h = model.layer(i, h, batch)
        if i in wanted:
            out[i] = h
    return out


@torch.inference_mode()
def resume(
    model: FoundationModel, h: Tensor, layer: int, batch: TokenBatch, stop: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """From the residual of `layer`, yield `(i, residual)` for i = layer + 1 .. stop (default: the last)."""
    for i in range(layer + 1, model.n_layers if stop is None else stop + 1):
        h = model.layer(i, h, batch)
        yield i, h


def check_layers(model: FoundationModel, layers: Iterable[int]) -> tuple[int, ...]:
    """The layers in order, each once; refused when the model has no such layer."""
    ordered = tuple(sorted(set(layers)))
    unknown = [i for i in ordered if not 0 <= i < model.n_layers]
    if unknown or not ordered:
        what = f"no layer {unknown[0]}" if unknown else "no layer was asked for"
        raise ScircuitError(f"{model.name}: {what}; layers are 0 to {model.n_layers - 1}.")
    return ordered


def gene_rows(
    model: FoundationModel, batches: Iterable[TokenBatch], layers: Iterable[int]
) -> Iterator[tuple[dict[int, Tensor], np.ndarray, np.ndarray]]:
    """For each batch: residuals at gene positions `{layer: [row, d_model]}`, gene and cell of each row."""
    wanted = check_layers(model, layers)
    for batch in batches:
        where = batch.is_gene
        keep = torch.from_numpy(where).to(model.device)
        cells = np.broadcast_to(batch.cell[:, None], where.shape)[where]
        rows = {i: h[keep] for i, h in residuals(model, batch, wanted).items()}
        yield rows, batch.gene[where], cells
