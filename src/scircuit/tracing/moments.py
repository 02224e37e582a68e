"""`Moments`: mergeable sums per (intervention, target latent), from which every statistic of an effect follows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scircuit.errors import ScircuitError

_FIELDS = ("n_cells", "n_nonzero", "n_pos", "total", "total_sq", "clean", "clean_sq")


@dataclass
class Moments:
    """Sums over cells of the responses of one target layer.

    `a + b` adds; sums in float64 taken in the same order of blocks are the same to the last bit, so a resumed
    or distributed run equals an uninterrupted one.
    """

    n_cells: Tensor
    """int64 `[row]`: cells in which the intervention acted."""
    n_nonzero: Tensor
    n_pos: Tensor
    """int32 `[row, latent]`: cells with a response other than 0, and above 0."""
    total: Tensor
    total_sq: Tensor
    """float64 `[row, latent]`: sum and sum of squares of the per-cell responses."""
    clean: Tensor
    clean_sq: Tensor
    """float64 `[row, latent]`: the same of the target's clean activation at the same positions."""

    @classmethod
    def zeros(cls, n_rows: int, n_latents: int, device: torch.device) -> "Moments":
        """Nothing seen yet."""
        counts = [torch.zeros(n_rows, n_latents, dtype=torch.int32, device=device) for _ in range(2)]
        sums = [torch.zeros(n_rows, n_latents, dtype=torch.float64, device=device) for _ in range(4)]
        return cls(torch.zeros(n_rows, dtype=torch.int64, device=device), *counts, *sums)

    def add(self, rows: np.ndarray, delta: Tensor, clean: Tensor) -> None:
        """Count one cell's response for each entry of `rows` `[n]`; `delta` and `clean` are `[n, latent]`."""
        index = torch.from_numpy(rows).to(self.total.device)
        delta, clean = delta.to(self.total.device), clean.to(self.total.device)
        self.n_cells.index_add_(0, index, torch.ones_like(index))
        self.n_nonzero.index_add_(0, index, (delta != 0).to(torch.int32))
        self.n_pos.index_add_(0, index, (delta > 0).to(torch.int32))
        self.total.index_add_(0, index, delta)
        self.total_sq.index_add_(0, index, delta.square())
        self.clean.index_add_(0, index, clean)
        self.clean_sq.index_add_(0, index, clean.square())

    def __add__(self, other: "Moments") -> "Moments":
        if self.total.shape != other.total.shape:
            raise ScircuitError(f"Moments of shapes {self.total.shape} and {other.total.shape} cannot be merged.")
        return Moments(*(getattr(self, name) + getattr(other, name) for name in _FIELDS))

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Named CPU tensors for a file."""
        return {f"{prefix}.{name}": getattr(self, name).cpu() for name in _FIELDS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> "Moments":
        """What `tensors` named."""
        return cls(*(tensors[f"{prefix}.{name}"] for name in _FIELDS))

    def arrays(self) -> dict[str, np.ndarray]:
        """Every field as a numpy array."""
        return {name: getattr(self, name).cpu().numpy() for name in _FIELDS}


def merge(parts: Iterable[Moments]) -> Moments:
    """Sum in the order given; parts made as they are asked for are in memory one at a time."""
    rest = iter(parts)
    out = next(rest)
    for part in rest:
        out = out + part
    return out
