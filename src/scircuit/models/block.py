"""The one post-norm transformer block that runs Geneformer and scGPT alike."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from scircuit.errors import ScircuitError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class PostNormBlock(nn.Module):
    """h1 = LN1(h + Attention(h)); h2 = LN2(h1 + MLP(h1)), biases everywhere, no causal mask.

    The parts are methods of their own because the tracing engines need the keys, the values and the residual
    between them. Layout of `qkv.weight`: `[3 * d_model, d_model]`, queries, keys, values.
    Sources: BERT (Devlin et al. 2019) as in Geneformer; `torch.nn.TransformerEncoderLayer` as in scGPT.
    """

    def __init__(self, d_model: int, n_heads: int, d_mlp: int, *, activation: str, eps: float) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ScircuitError(f"d_model={d_model} is not a multiple of n_heads={n_heads}; check the config.")
        if activation not in ACTIVATIONS:
            raise ScircuitError(f"activation={activation!r} is unknown; it may be {', '.join(ACTIVATIONS)}.")
        self.n_heads = n_heads
        self.activation = ACTIVATIONS[activation]
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.norm1 = nn.LayerNorm(d_model, eps=eps)
        self.up = nn.Linear(d_model, d_mlp)
        self.down = nn.Linear(d_mlp, d_model)
        self.norm2 = nn.LayerNorm(d_model, eps=eps)

    def heads(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of `h [..., position, d_model]`, each `[..., head, position, d_head]`."""
        shape = (*h.shape[:-1], 3, self.n_heads, h.shape[-1] // self.n_heads)
        q, k, v = self.qkv(h).view(shape).unbind(dim=-3)
        return q.transpose(-3, -2), k.transpose(-3, -2), v.transpose(-3, -2)

    def merge(self, context: Tensor) -> Tensor:
        """`[..., head, position, d_head]` -> `[..., position, d_model]`."""
        return context.transpose(-3, -2).flatten(start_dim=-2)

    def finish(self, h: Tensor, context: Tensor) -> Tensor:
        """The rest of the block after attention; `h` and the merged `context` are `[..., d_model]`."""
        h1 = self.norm1(h + self.out(context))
        return self.norm2(h1 + self.down(self.activation(self.up(h1))))

    def at(self, h: Tensor, positions: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """The block's output at some positions only, `[cell, n, d_model]`: keys and values for all, the rest for few.

        `positions` int64 `[cell, n]` (repeats allowed) counts positions of `h [cell, position, d_model]`.
        """
        rows = h.gather(1, positions[..., None].expand(-1, -1, h.shape[-1]))
        d, heads = h.shape[-1], (self.n_heads, h.shape[-1] // self.n_heads)
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(rows, weight[:d], bias[:d]).unflatten(-1, heads).transpose(-3, -2)
        k, v = F.linear(h, weight[d:], bias[d:]).unflatten(-1, (2, *heads)).transpose(-4, -2).unbind(dim=-3)
        return self.finish(rows, self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)))

    def forward(self, h: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """The residual after the block, from `h [cell, position, d_model]`.

        `key_mask`, bool `[cell, 1, 1, position]`, is True where a key may be attended to; None = everywhere.
        """
        q, k, v = self.heads(h)
        return self.finish(h, self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)))
