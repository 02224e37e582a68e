"""Whether the latents of a dictionary are the data's or the seed's, and which of them detect a single gene."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scircuit.errors import ScircuitError

_CHUNK_ROWS = 4_096


@dataclass(frozen=True)
class Stability:
    """How well the latents of one dictionary are found again in another.

    Attributes
    ----------
    best : float32 `[n_latents]`
        Largest cosine between the decoder direction of each latent and any direction of the other dictionary.
    match : int64 `[n_latents]`
        The latent of the other dictionary that has it.
    mean : float
        Mean of `best`: the max-cosine matching score.
    """

    best: np.ndarray
    match: np.ndarray
    mean: float

    def share_above(self, cosine: float) -> float:
        """Share of the latents whose best match reaches this cosine."""
        return float((self.best >= cosine).mean())


@torch.no_grad()
def stability(W_dec: Tensor, other: Tensor) -> Stability:
    """Match each decoder direction `[n_latents, d_in]` with its nearest in another dictionary, e.g. another seed's.

    Several latents may share a match (max-cosine matching, Sharkey et al. 2022; Paulo & Belrose 2025 use it between
    seeds). What unrelated dictionaries give by chance depends on width and size: compare with random directions.

    Raises
    ------
    ScircuitError
        If the two dictionaries describe residuals of different width.
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


def top_gene_share(activation_sums: np.ndarray) -> np.ndarray:
    """Share of a latent's whole activation that falls on its strongest gene, `[n_latents]`; NaN where it never fires.

    `activation_sums` is `[n_latents, n_genes]`: activation summed over all positions that hold the gene.
    """
    sums = np.asarray(activation_sums, dtype=np.float64)
    if sums.ndim != 2 or (sums < 0).any() or not np.isfinite(sums).all():
        raise ScircuitError(
            f"activation sums must be finite numbers >= 0 of shape [n_latents, n_genes]; these have shape {sums.shape}."
        )
    total = sums.sum(axis=1)
    share = np.full(len(sums), np.nan)
    np.divide(sums.max(axis=1, initial=0.0), total, out=share, where=total > 0)
    return share


def one_gene_share(activation_sums: np.ndarray, threshold: float = 0.5) -> float:
    """Share of the live latents that detect one gene: more than `threshold` of their activation falls on it.

    Such a latent restates which token it sits on; counting it as a program would mistake identity for biology.
    Raises `ScircuitError` when no latent fires or the threshold lies outside (0, 1).
    """
    if not 0 < threshold < 1:
        raise ScircuitError(f"the threshold of a one-gene detector is {threshold}; choose a share between 0 and 1.")
    share = top_gene_share(activation_sums)
    live = share[~np.isnan(share)]
    if not len(live):
        raise ScircuitError("no latent fires, so there are no one-gene detectors to count; check the activation sums.")
    return float((live > threshold).mean())
