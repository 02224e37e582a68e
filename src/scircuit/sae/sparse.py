"""Loss and gradients of a TopK dictionary through its active latents alone: the fast path on CPUs.

`Stack` states the same loss densely, for autograd, and that is the reference. Here the decoder, and all the weight
gradients, touch only the k of n_latents entries per row that are not zero, which is a sixth of the arithmetic.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class SparsePass(NamedTuple):
    """`error` = x - reconstruction, `[layer, row, d_in]`; `values` and `indices` of the latents, `[layer, row, k]`."""

    error: Tensor
    values: Tensor
    indices: Tensor


def backpropagate(x: Tensor, parameters: dict[str, Tensor], k: int) -> SparsePass:
    """Forward pass, and gradients of sum over layers of mean squared error, written into `.grad`.

    `x` is `[layer, row, d_in]`; parameters as in `Stack`. Gradients are exact and deterministic: rows are summed
    in order within each latent.
    """
    encoder, W_dec = parameters["encoder"].detach(), parameters["W_dec"].detach()
    n_layers, n_latents, d_in = W_dec.shape
    n_rows = x.shape[1]
    pre = torch.baddbmm(parameters["b_enc"].detach(), x, encoder.transpose(1, 2))
    values, indices = pre.topk(k, dim=-1, sorted=False)
    values = values.relu().view(-1, k).requires_grad_()
    flat = (indices + n_latents * torch.arange(n_layers, device=x.device).view(-1, 1, 1)).view(-1, k)
    decoded = functional.embedding_bag(flat, W_dec.view(-1, d_in), per_sample_weights=values, mode="sum")
    error = x - decoded.detach().view_as(x) - parameters["b_dec"].detach()
    descent = error.mul(-2 / (n_rows * d_in))
    (value_gradient,) = torch.autograd.grad(decoded, values, descent.view(-1, d_in))
    values = values.detach()
    value_gradient = value_gradient * (values > 0)

    # The same entries sorted by latent: then a weight's gradient is a weighted sum over a run of rows.
    order = flat.flatten().argsort(stable=True)
    rows = order // k
    starts = torch.bincount(flat.flatten(), minlength=n_layers * n_latents).cumsum(0).roll(1)
    starts[0] = 0

    def per_latent(table: Tensor, weights: Tensor) -> Tensor:
        weights = weights.flatten()[order]
        return functional.embedding_bag(rows, table, starts, per_sample_weights=weights, mode="sum")

    parameters["W_dec"].grad = per_latent(descent.view(-1, d_in), values).view_as(W_dec)
    parameters["encoder"].grad = per_latent(x.reshape(-1, d_in), value_gradient).view_as(encoder)
    ones = x.new_ones(n_layers * n_rows, 1)
    parameters["b_enc"].grad = per_latent(ones, value_gradient).view_as(parameters["b_enc"])
    parameters["b_dec"].grad = descent.sum(dim=1, keepdim=True)
    return SparsePass(error, values.view(n_layers, n_rows, k), indices)
