"""`SaeTraining`: everything that decides how dictionaries are trained."""

from dataclasses import dataclass

from scircuit._settings import check_ranges, derived, ranged
from scircuit.errors import ScircuitError

TRAINABLE = ("topk", "batchtopk", "jumprelu")
FROZEN = {"none": (), "decoder": ("W_dec",), "encoder": ("encoder", "b_enc")}
"""Parameters of the stack that keep their random start, by word."""


@dataclass(frozen=True)
class SaeTraining:
    """How dictionaries are trained; the same values give the same weights, bit for bit, on the same machine."""

    architecture: str = "topk"
    """topk (k per position), batchtopk (k per position on average; used as jumprelu afterwards) or jumprelu."""
    expansion: int = ranged(4, 1)
    """Latents per dimension of the residual stream."""
    k: int = ranged(32, 1)
    """Active latents per position: at most (topk), on average (batchtopk), or aimed at (jumprelu)."""
    matryoshka: tuple[float, ...] = ()
    """Shares of the dictionary whose first latents must reconstruct on their own, e.g. [0.0625, 0.25]; none: plain."""
    n_steps: int = ranged(2_000, 1)
    """Optimiser steps of batch_rows positions per layer; the data start again when they run out."""
    batch_rows: int = ranged(2_048, 1)
    """Positions per step and layer."""
    buffer_rows: int = ranged(65_536, 1)
    """Positions per layer that are shuffled together; memory is n_layers x buffer_rows x d_model x 4 bytes."""
    lr: float | None = None
    """Learning rate of Adam; by default 1e-3 / sqrt(n_latents / 16384)."""
    warmup_share: float = ranged(0.05, 0, 1)
    """Share of the steps over which the learning rate rises from 0."""
    decay_share: float = ranged(0.2, 0, 1)
    """Share of the steps, at the end, over which the learning rate falls to 0."""
    aux_k: int | None = None
    """Dead latents that reconstruct the remaining error (AuxK); by default half of d_model."""
    aux_coefficient: float = 1 / 32
    """Weight of the AuxK loss; 0 leaves dead latents dead."""
    dead_after_rows: int = ranged(50_000, 1)
    """A latent that has not fired for so many positions counts as dead."""
    sparsity_coefficient: float = 1.0
    """jumprelu only: weight of (L0 / k - 1)^2."""
    bandwidth: float = 0.1
    """jumprelu only: width of the window around the threshold that passes gradients, in units of the scaled input."""
    freeze: str = "none"
    """As a null (arXiv 2602.14111), what stays as it was drawn while the rest learns: none, decoder or encoder."""
    bf16: bool = False
    """Forward pass of the training in bfloat16 (parameters stay float32): faster on GPUs that have it."""
    seed: int = derived(0)
    """Seed of the initial weights."""
    order_seed: int = derived(0)
    """Seed of the order in which positions are drawn from the buffer."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "matryoshka", tuple(self.matryoshka))
        if self.architecture not in TRAINABLE:
            raise ScircuitError(
                f"unknown SAE architecture {self.architecture!r}; choose one of {', '.join(TRAINABLE)}."
            )
        if self.freeze not in FROZEN:
            raise ScircuitError(f"SAE training: freeze is {self.freeze!r}; choose one of {', '.join(FROZEN)}.")
        check_ranges(self)
        if self.lr is not None and not self.lr > 0:
            raise ScircuitError(f"SAE training: lr is {self.lr}; it must be positive.")
        if self.warmup_share + self.decay_share > 1:
            raise ScircuitError("SAE training: warmup_share and decay_share exceed 1 together; lower one of them.")
        if self.buffer_rows < self.batch_rows:
            raise ScircuitError(
                f"SAE training: buffer_rows ({self.buffer_rows}) is smaller than batch_rows ({self.batch_rows}); "
                "raise buffer_rows."
            )
        if any(not 0 < share < 1 for share in self.matryoshka) or list(self.matryoshka) != sorted(set(self.matryoshka)):
            raise ScircuitError(
                f"SAE training: matryoshka is {self.matryoshka}; give rising shares between 0 and 1 "
                "(the whole dictionary is always included)."
            )

    def n_latents(self, d_in: int) -> int:
        """Size of the dictionary for residuals of width `d_in`."""
        n_latents = self.expansion * d_in
        if self.k > n_latents:
            raise ScircuitError(
                f"SAE training: k is {self.k}, but {self.expansion} x {d_in} gives {n_latents} latents; lower k."
            )
        return n_latents

    def learning_rate(self, d_in: int, step: int) -> float:
        """Learning rate at a step (0-based): linear warm-up, constant, linear decay to 0.

        The peak scales with n_latents^-1/2 as in Gao et al. 2024, appendix A.3: with expansion fixed, a step is then
        the same share of an entry of a unit-norm row at any width.
        """
        peak = self.lr if self.lr is not None else 1e-3 / (self.n_latents(d_in) / 2**14) ** 0.5
        warmup, decay = self.warmup_share * self.n_steps, self.decay_share * self.n_steps
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        falling = min(1.0, (self.n_steps - step) / decay) if decay else 1.0
        return peak * rising * falling
