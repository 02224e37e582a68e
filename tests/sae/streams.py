"""Activation streams whose truth is known."""

from collections.abc import Iterator

import torch
from torch import Tensor

from scircuit.sae.buffer import Stream


def residuals(n_rows: int, d: int = 16, layers: tuple[int, ...] = (0, 1), seed: int = 0) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(n_rows, d, generator=generator) * (layer + 1) + 3 * layer for layer in layers}


def stream_of(data: dict[int, Tensor], chunk: int = 100) -> Stream:
    def stream(epoch: int) -> Iterator[dict[int, Tensor]]:
        n_rows = len(next(iter(data.values())))
        order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(epoch))
        for start in range(0, n_rows, chunk):
            yield {layer: rows[order[start : start + chunk]] for layer, rows in data.items()}

    return stream


def planted(n_rows: int, d: int, n_directions: int, active: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sparse non-negative combinations of random unit vectors around a mean; the vectors are the truth."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(n_directions, d, generator=generator)
    truth /= truth.norm(dim=1, keepdim=True)
    chosen = torch.rand(n_rows, n_directions, generator=generator).topk(active, dim=1).indices
    weights = torch.rand(n_rows, active, generator=generator) + 0.5
    rows = (truth[chosen] * weights.unsqueeze(-1)).sum(dim=1)
    return rows + torch.randn(d, generator=generator), truth
