"""How well a dictionary describes residuals it was not trained on, with SAEBench's names, in one streaming pass."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from scircuit.errors import ScircuitError
from scircuit.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class SaeQuality:
    """Quality of one dictionary on held-out rows."""

    fvu: float
    """Fraction of variance unexplained: sum |h - r|^2 / sum |h - mean h|^2."""
    explained_variance: float
    """1 - fvu."""
    mse: float
    """Mean over rows of |h - r|^2 (units of the residual stream, squared)."""
    cossim: float
    """Mean over rows of the cosine between residual and reconstruction (mean not removed, as in SAEBench)."""
    relative_reconstruction_bias: float
    """E|r|^2 / E[h . r]; below 1 the reconstruction is too small (Rajamanoharan et al. 2024, "Improving dictionary
    learning with gated sparse autoencoders", section 2.3)."""
    l0: float
    """Mean number of latents that fire per row."""
    frac_alive: float
    """Share of the dictionary that fires at least once."""
    n_rows: int
    """Held-out rows seen."""


class QualityAccumulator:
    """Mergeable sums behind `SaeQuality`; `a + b` equals one pass over both (in float64)."""

    def __init__(self, d_in: int, n_latents: int) -> None:
        self.n_rows = 0
        self.mean = torch.zeros(d_in, dtype=torch.float64)
        self.total = 0.0
        self.residual = 0.0
        self.cosine = 0.0
        self.norm_squared = 0.0
        self.dot = 0.0
        self.firings = torch.zeros(n_latents, dtype=torch.int64)

    @torch.no_grad()
    def update(self, sae: SparseAutoencoder, h: Tensor) -> None:
        """Add held-out residuals `[row, d_in]`."""
        if not len(h):
            return
        latents = sae.encode(h)
        r = sae.decode(latents).double()
        h = h.double()
        block = QualityAccumulator(len(self.mean), len(self.firings))
        block.n_rows = len(h)
        block.mean = h.mean(dim=0).cpu()
        block.total = float((h - h.mean(dim=0)).square().sum())
        block.residual = float((h - r).square().sum())
        block.cosine = float(torch.nn.functional.cosine_similarity(h, r, dim=1).sum())
        block.norm_squared = float(r.square().sum())
        block.dot = float((h * r).sum())
        fired = latents.indices[latents.values > 0].cpu()
        block.firings = torch.bincount(fired, minlength=len(self.firings))
        self.__dict__.update((self + block).__dict__)

    def __add__(self, other: Self) -> Self:
        """Both passes as one; the variance is merged by the formula of Chan et al. 1983."""
        merged = type(self)(len(self.mean), len(self.firings))
        merged.n_rows = self.n_rows + other.n_rows
        n = max(merged.n_rows, 1)
        gap = other.mean - self.mean
        merged.mean = self.mean + gap * (other.n_rows / n)
        merged.total = self.total + other.total + float(gap.square().sum()) * self.n_rows * other.n_rows / n
        for name in ("residual", "cosine", "norm_squared", "dot", "firings"):
            setattr(merged, name, getattr(self, name) + getattr(other, name))
        return merged

    def result(self) -> SaeQuality:
        """Quality over all rows; refused when there were none, or when they are all the same."""
        if self.n_rows == 0 or self.total == 0:
            raise ScircuitError(
                f"SAE quality needs held-out rows that differ, and got {self.n_rows}; hold out more cells."
            )
        return SaeQuality(
            fvu=self.residual / self.total,
            explained_variance=1 - self.residual / self.total,
            mse=self.residual / self.n_rows,
            cossim=self.cosine / self.n_rows,
            relative_reconstruction_bias=self.norm_squared / self.dot if self.dot else float("inf"),
            l0=int(self.firings.sum()) / self.n_rows,
            frac_alive=float((self.firings > 0).double().mean()),
            n_rows=self.n_rows,
        )

    def log_sparsity(self) -> Tensor:
        """log10 of the firing frequency of each latent, `[n_latents]` float32; -10 where it never fired.

        SAELens stores log10(frequency + 1e-10) in `sparsity.safetensors`.
        """
        return (self.firings.double() / max(self.n_rows, 1) + 1e-10).log10().float()


def loss_recovered(clean: float, spliced: float, ablated: float) -> float:
    """Share of the model's loss that the reconstruction keeps: (ablated - spliced) / (ablated - clean).

    1: as good as the residual itself; 0: as bad as the ablation (SAEBench: `ce_loss_score`). Losses in any one
    unit. Undefined, and refused, when the ablation does not hurt.
    """
    if not ablated > clean:
        raise ScircuitError(
            f"the loss recovered is undefined: ablating the layer does not raise the loss ({ablated:g} against "
            f"{clean:g} clean); use more cells or a stronger ablation."
        )
    return (ablated - spliced) / (ablated - clean)
