"""`Latents`: sparse feature activations, the only form in which they travel."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class Latents(NamedTuple):
    """The active latents of each row, at most `k` of them."""

    values: Tensor
    """float `[row, k]`: activations, 0 where fewer than `k` latents are active. A latent fires iff its value is > 0."""
    indices: Tensor
    """int64 `[row, k]`: latent of each value; arbitrary but valid where the value is zero."""

    def dense(self, n_latents: int) -> Tensor:
        """`[row, n_latents]`; for small reads and tests, never for whole data sets."""
        out = self.values.new_zeros(self.values.shape[0], n_latents)
        return out.scatter_add_(1, self.indices, self.values)

    def rows(self, index: Tensor) -> "Latents":
        """The same latents at fewer rows."""
        return Latents(self.values[index], self.indices[index])

    def firings(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row (int64), latent (int64) and activation (float64) of every firing, rows ascending."""
        fires = self.values > 0
        found = (fires.nonzero()[:, 0], self.indices[fires], self.values[fires].float())
        row, latent, value = (tensor.cpu().numpy() for tensor in found)
        return row, latent, value.astype(np.float64)

    def column(self, latent: int) -> Tensor:
        """Activation of one latent at every row, `[row]`."""
        return torch.where(self.indices == latent, self.values, 0).sum(dim=1)


def concatenate(parts: Sequence[Latents]) -> Latents:
    """All rows one after another; narrower parts (fewer active latents) are filled up with zeros of latent 0."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.values.shape[1] for part in parts)
    values = [functional.pad(part.values, (0, width - part.values.shape[1])) for part in parts]
    indices = [functional.pad(part.indices, (0, width - part.indices.shape[1])) for part in parts]
    return Latents(torch.cat(values), torch.cat(indices))
