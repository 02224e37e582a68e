"""Whether the latents of a dictionary are the data's or the seed's."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scircuit.errors import ScircuitError

_CHUNK_ROWS = 4_096


@dataclass(frozen=True)
class Stability:
    """How well the latents of one dictionary are found again in another."""

    best: np.ndarray
    """float32 `[n_latents]`: largest cosine between the decoder direction of each latent and any direction of the other
    dictionary."""
    match: np.ndarray
    """int64 `[n_latents]`: the latent of the other dictionary that has it."""
    mean: float
    """Mean of `best`: the max-cosine matching score."""


@torch.no_grad()
def stability(W_dec: Tensor, other: Tensor) -> Stability:
    """Match each decoder direction `[n_latents, d_in]` with its nearest in another dictionary, e.g. another seed's.

    Several latents may share a match (max-cosine matching, Sharkey et al. 2022; Paulo & Belrose 2025 use it between
    seeds). What unrelated dictionaries give by chance depends on width and size: compare with random directions.
    """
    if W_dec.ndim != 2 or other.ndim != 2 or W_dec.shape[1] != other.shape[1]:
        raise ScircuitError(
            f"decoders of shape {tuple(W_dec.shape)} and {tuple(other.shape)} cannot be matched; both must be "
            "[n_latents, d_in] of the same width."
        )
    first, second = (torch.nn.functional.normalize(tensor.float(), dim=1) for tensor in (W_dec, other))
    parts = [(rows @ second.T).max(dim=1) for rows in first.split(_CHUNK_ROWS)]
    best = torch.cat([part.values for part in parts]).cpu().numpy()
    match = torch.cat([part.indices for part in parts]).cpu().numpy()
    return Stability(best, match, float(best.mean()))
