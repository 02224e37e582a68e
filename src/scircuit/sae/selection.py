"""Which latents are active in training, over stacked layers: `[layer, row, latent]` in, the same shape out."""

from typing import Any

import torch
from torch import Tensor


def top_k(pre: Tensor, k: int) -> Tensor:
    """The k largest pre-activations of each row, then ReLU; 0 elsewhere."""
    values, indices = pre.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(pre).scatter(-1, indices, values.relu())


def batch_top_k(pre: Tensor, k: int) -> Tensor:
    """The k x rows largest positive pre-activations of each layer's batch (Bussmann et al. 2024, eq. 4)."""
    flat = pre.relu().flatten(1)
    values, indices = flat.topk(k * pre.shape[1], dim=1, sorted=False)
    return torch.zeros_like(flat).scatter(1, indices, values).view_as(pre)


class _Step(torch.autograd.Function):
    """H(pre - threshold), with a rectangle-kernel gradient for the threshold alone."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        window = ((pre - threshold).abs() < ctx.bandwidth / 2).to(pre.dtype) / ctx.bandwidth
        return None, -(gradients[0] * window).sum(dim=1, keepdim=True), None


def step_function(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """1 where pre > threshold (Rajamanoharan et al. 2024, eq. 9-11); its mean is a trainable L0.

    `threshold` is `[layer, 1, latent]`. d/d threshold = -1/bandwidth inside a window of that width, 0 outside.
    """
    return _Step.apply(pre, threshold, bandwidth)


def jump_relu(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Pre where it exceeds the threshold, else 0; the jump's gradient reaches the threshold (same paper, eq. 11)."""
    return pre.relu() * step_function(pre, threshold, bandwidth)
