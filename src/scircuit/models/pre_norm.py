"""The pre-norm transformer block, as Llama and its kin have it and as `torch.nn` has it with `norm_first`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scircuit.errors import ScircuitError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


@dataclass(frozen=True)
class PreNormShape:
    """What decides a block beyond its weights."""

    d_model: int
    n_heads: int
    d_mlp: int
    activation: str
    """Of the MLP, or of the gate where it has one."""
    eps: float
    rms: bool = False
    """RMSNorm in place of LayerNorm."""
    gated: bool = False
    """The MLP's inner units are multiplied by an activated gate (GLU)."""
    bias: bool = True
    """Biases of the linear maps."""
    causal: bool = False
    """A position attends to itself and those before it."""
    n_kv_heads: int | None = None
    """Heads of keys and values, each shared by several of queries; None for as many."""
    d_head: int | None = None
    """Width of a head; None for d_model / n_heads."""
    rope_theta: float | None = None
    """Base of rotary positions (Su et al. 2021); None without."""

    def __post_init__(self) -> None:
        if self.d_head is None and self.d_model % self.n_heads:
            raise ScircuitError(
                f"d_model={self.d_model} is not a multiple of n_heads={self.n_heads}; check the config."
            )
        if self.n_heads % self.kv_heads:
            raise ScircuitError(
                f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.kv_heads}; check the config."
            )
        if self.activation not in ACTIVATIONS:
            raise ScircuitError(f"activation={self.activation!r} is unknown; it may be {', '.join(ACTIVATIONS)}.")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_kv_heads or self.n_heads

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.d_head or self.d_model // self.n_heads

    def norm(self) -> nn.Module:
        """A new norm of this kind."""
        kind = nn.RMSNorm if self.rms else nn.LayerNorm
        return kind(self.d_model, eps=self.eps)


class PreNormBlock(nn.Module):
    """h1 = h + Attention(N1(h)); h2 = h1 + MLP(N2(h1)).

    Sources: Xiong et al. 2020 (pre-norm); Touvron et al. 2023 (Llama: RMSNorm, SwiGLU, rotary positions).
    """

    def __init__(self, shape: PreNormShape) -> None:
        super().__init__()
        self.shape, d, bias = shape, shape.d_model, shape.bias
        self.norm1, self.norm2 = shape.norm(), shape.norm()
        self.q = nn.Linear(d, shape.n_heads * shape.head, bias=bias)
        self.k = nn.Linear(d, shape.kv_heads * shape.head, bias=bias)
        self.v = nn.Linear(d, shape.kv_heads * shape.head, bias=bias)
        self.out = nn.Linear(shape.n_heads * shape.head, d, bias=bias)
        self.gate = nn.Linear(d, shape.d_mlp, bias=bias) if shape.gated else None
        self.up = nn.Linear(d, shape.d_mlp, bias=bias)
        self.down = nn.Linear(shape.d_mlp, d, bias=bias)

    def forward(self, h: Tensor, key_mask: Tensor | None = None, key_bias: Tensor | None = None) -> Tensor:
        """The residual after the block, from `h [cell, position, d_model]`.

        `key_mask`, bool `[cell, 1, 1, position]`, is True where a key may be attended to; None = everywhere.
        `key_bias`, float of that shape, is added to the scores of each key.
        """
        h1 = h + self.out(self.attend(self.norm1(h), key_mask, key_bias))
        return h1 + self.mlp(self.norm2(h1))

    def attend(self, x: Tensor, key_mask: Tensor | None, key_bias: Tensor | None) -> Tensor:
        """Attention of the normed residual, heads merged, before the output map."""
        q, k, v = (self._heads(linear(x)) for linear in (self.q, self.k, self.v))
        if self.shape.rope_theta is not None:
            q, k = (rotate(part, self.shape.rope_theta) for part in (q, k))
        shared = self.shape.n_heads // self.shape.kv_heads
        if shared > 1:
            k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        mask, causal = self._mask(x, key_mask, key_bias)
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return context.transpose(1, 2).flatten(start_dim=2)

    def mlp(self, x: Tensor) -> Tensor:
        """The MLP of the normed residual."""
        act = ACTIVATIONS[self.shape.activation]
        return self.down(act(self.up(x)) if self.gate is None else act(self.gate(x)) * self.up(x))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.shape.head)).transpose(1, 2)

    def _mask(self, x: Tensor, key_mask: Tensor | None, key_bias: Tensor | None) -> tuple[Tensor | None, bool]:
        """What is added to the scores, and whether the kernel is to be causal by itself.

        Padding stands on the right, so that no position of a cell sees it where attention is causal.
        """
        if key_bias is None:
            return (None, True) if self.shape.causal else (key_mask, False)
        length = x.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool, device=x.device)
        seen = seen.tril() if self.shape.causal else seen
        if key_mask is not None and not self.shape.causal:
            seen = seen & key_mask
        return torch.where(seen, key_bias.to(x.dtype), torch.finfo(x.dtype).min), False


def rotate(x: Tensor, theta: float) -> Tensor:
    """Rotary positions 0, 1, ... of `x [cell, head, position, d_head]`, halves paired as Llama pairs them."""
    half = x.shape[-1] // 2
    # In Llama's own arithmetic: at position 1,000 the last bit of a frequency is 1e-4 of an angle.
    frequency = 1.0 / theta ** (torch.arange(0, 2 * half, 2, device=x.device, dtype=torch.float32) / (2 * half))
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
