"""Attention of many edited rows to one cell, the clean keys shared and each row's own columns replaced by edited ones.

The softmax is taken in two parts. The shared part runs over the clean keys without the row's own columns: one product
serves all jobs, and no key is copied. The own part runs over the edited keys of the row's job: a small block-diagonal
product. Each part gives its weighted mean of the values and the logarithm of its sum of exponentials (LSE); merged,
out = (1 - w) shared + w own with w = sigmoid(LSE own - LSE shared). Where every column is the row's own, w = 1.
"""

import math

import torch
from torch import Tensor


def attend(
    q: Tensor, k: Tensor, v: Tensor, k_own: Tensor, v_own: Tensor, own: Tensor, table: Tensor, valid: Tensor
) -> Tensor:
    """Weighted means of the values `[head, row, d_head]`.

    `q`, `k_own`, `v_own` `[head, row, d_head]` are of the edited rows, `k`, `v` `[head, position, d_head]` the cell's
    clean ones. `own`, int64 `[pair]`, lists the clean columns that a row's own ones replace, as row x positions +
    position; `table`, int64 `[job, widest]`, the rows of each job; `valid` is False at its padding.
    """
    mask = q.new_zeros(q.shape[1], k.shape[1])
    mask.view(-1)[own] = -math.inf
    shared, lse = (_flash if q.device.type == "cpu" else _plain)(q, k, v, mask)
    edited, lse_own = _plain(q[:, table], k_own[:, table], v_own[:, table], valid[:, None, :].to(q.dtype).log())
    weight = torch.sigmoid(lse_own[:, valid] - lse)[..., None].to(q.dtype)
    # Without a shared column its mean is 0 / 0, which a weight of 0 would not silence.
    return torch.where(weight < 1, shared, 0.0) * (1 - weight) + edited[:, valid] * weight


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the values `[..., row, d_head]` and LSE `[..., row]`; `mask` is added to the scores."""
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1) + mask
    lse = scores.logsumexp(dim=-1)
    return scores.softmax(dim=-1) @ v, lse


def _flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same by PyTorch's fused kernel for CPUs, which never writes the scores and returns the LSE as well."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q[None], k[None], v[None], attn_mask=mask)
    # The kernel says 0 for a row that may attend to nothing.
    return out[0], lse[0].masked_fill(mask.isneginf().all(dim=-1), -math.inf)
