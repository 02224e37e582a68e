"""Dictionaries that keep every latent above its threshold: JumpReLU, BatchTopK after training, plain ReLU."""

from typing import Any

import torch
from torch import Tensor, nn

from scircuit.errors import ScircuitError
from scircuit.sae.base import LinearSAE
from scircuit.sae.latents import Latents


class JumpReLUSAE(LinearSAE):
    """z = pre where pre > threshold, else 0, with one threshold >= 0 per latent.

    Source: Rajamanoharan et al. 2024, "Jumping ahead", eq. 3. A BatchTopK dictionary (Bussmann et al. 2024) is
    used this way once trained, and ReLU ("standard") is the case threshold = 0. The number of active latents
    differs from row to row: `encode` is as wide as the row that has most.
    """

    def __init__(self, *arguments: Any, threshold: Tensor | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if threshold is None:
            threshold = torch.zeros_like(self.b_enc)
        if tuple(threshold.shape) != (self.n_latents,) or bool((threshold < 0).any()):
            raise ScircuitError(
                f"the threshold of a jumprelu SAE must be {self.n_latents} numbers >= 0, one per latent; "
                f"these have shape {tuple(threshold.shape)} and a smallest value of {float(threshold.min()):g}."
            )
        self.threshold = nn.Parameter(threshold.detach().clone(), requires_grad=False)

    def _activate(self, pre: Tensor) -> Latents:
        active = pre > self.threshold
        width = int(active.sum(dim=1).max()) if len(pre) else 0
        values, indices = torch.where(active, pre, 0).topk(width, dim=1)
        return Latents(values, indices)
