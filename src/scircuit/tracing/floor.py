"""The numerical floor: a response that the arithmetic cannot tell from nothing is zero.

A response is a difference of activations that were both rounded, so what a network leaves untouched comes out as
noise of either sign, another one on every processor. With n positions averaged, RMS(h) over the entries of the clean
residual at these positions, and ||w|| the norm of the target's decoder row (which brings an activation into units of
the residual), a response r counts where

    |r| ||w|| sqrt(n) >= (STORED eps(stored) + SUMMED eps(summed)) RMS(h).

The first term is the rounding of what is stored, in the model's precision (TF32: what enters a product); the second
that of long sums, which every precision takes in float32 at least. It falls with sqrt(n) because the errors of
different positions are independent.

Measured: float32 against float64 in both packaged models (width 128, 6 layers) by both engines at every distance, for
whole edits and edits 10,000 times smaller. Native AVX2 was looked at with one of the models, kernels without it with
the other, two threads in one cell. In units of eps RMS(h) / (||w|| sqrt(n)) a response errs by 1 in the median, by up
to 18 at the 99.9 % quantile and by 41 at most; the floor there is 64, a margin of 1.6, and 0.01 to 0.03 % of the
responses to whole edits lie under it. In bfloat16 the median is 0.1 to 0.3 and the 99.9 % quantile 1.5 to 3, where the
floor is 2: chosen after 4 had cost recall at a distance of three layers. Not measured: other widths and depths, a GPU,
TF32. Not noise in this sense: a latent that rounding brings among the k largest of a row, or out of them (rare in
float32, 2 to 7 % of the responses in bfloat16).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scircuit.sae.base import SparseAutoencoder

STORED, SUMMED = 2.0, 62.0
"""Roundings allowed for what is stored and for what is summed, in eps of the one and of the other."""

_TF32_EPS = 2.0**-10


def uses_tf32(device: torch.device) -> bool:
    """Whether float32 products on this device are rounded to TensorFloat-32, with 10 bits of mantissa."""
    return device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32


def relative_floor(dtype: torch.dtype, device: torch.device) -> float:
    """STORED eps(stored) + SUMMED eps(summed): the floor of one position in units of RMS(h) / ||w||."""
    eps = torch.finfo(dtype).eps
    stored = _TF32_EPS if dtype == torch.float32 and uses_tf32(device) else eps
    return STORED * stored + SUMMED * min(eps, torch.finfo(torch.float32).eps)


def record(dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """For `trace.json`: the constants and the relative floor that they give here."""
    return {"stored": STORED, "summed": SUMMED, "relative": relative_floor(dtype, device)}


@dataclass(frozen=True)
class Floor:
    """The floor of every value that is read from a residual: `norm` float64 `[value]`, or 1 for the residual itself."""

    norm: Tensor | float
    relative: float

    @classmethod
    def of(cls, sae: SparseAutoencoder, dtype: torch.dtype) -> "Floor":
        """For the latents of a dictionary, of residuals in `dtype`."""
        decoder = sae.W_dec.detach()
        coarser = max(dtype, decoder.dtype, key=lambda d: torch.finfo(d).eps)
        return cls(in_float64(decoder.norm(dim=1)), relative_floor(coarser, decoder.device))

    @classmethod
    def of_residual(cls, dtype: torch.dtype, device: torch.device) -> "Floor":
        """For the entries of the residual itself."""
        return cls(1.0, relative_floor(dtype, device))

    def apply(self, delta: Tensor, h: Tensor, of_job: Tensor | None = None) -> Tensor:
        """The responses `delta`, float64 `[job, value]`, with 0 wherever they lie under the floor.

        `h` `[row, d_model]` is the clean residual at the positions over which they were averaged, `of_job` int64
        `[row]` whose position each row is (None: every job has all of them).
        """
        square = in_float64((h if h.dtype == torch.float64 else h.float()).square().mean(dim=1)).to(delta.device)
        owner = torch.zeros(len(h), dtype=torch.int64, device=delta.device) if of_job is None else of_job
        owner, n_jobs = owner.to(delta.device), 1 if of_job is None else len(delta)
        total, n = square.new_zeros(n_jobs).index_add_(0, owner, square), owner.bincount(minlength=n_jobs)
        # RMS / sqrt(n), where RMS^2 = total / n.
        least = self.relative * total.sqrt() / n
        norm = self.norm.to(delta.device) if isinstance(self.norm, Tensor) else self.norm
        return torch.where(delta.abs() * norm >= least[:, None], delta, 0.0)


def floors(saes: Mapping[int, SparseAutoencoder], targets: Sequence[int], dtype: torch.dtype) -> dict[int, Floor]:
    """Of every target layer."""
    return {t: Floor.of(saes[t], dtype) for t in targets}


def in_float64(x: Tensor) -> Tensor:
    """`x` in float64; on the CPU where the device has none (MPS)."""
    # Device first: MPS knows no float64, not even on the way to the CPU.
    return (x.cpu() if x.device.type == "mps" else x).double()
