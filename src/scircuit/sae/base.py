"""The small interface behind which every sparse autoencoder stands, and what all linear ones share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from scircuit.errors import ScircuitError
from scircuit.sae.latents import Latents, concatenate

ARCHITECTURES = ("topk", "signed_topk", "jumprelu", "standard")
"""How a dictionary chooses its active latents once trained. BatchTopK is a `jumprelu` after training."""

_CHUNK_ELEMENTS = 1 << 24
"""Pre-activations held at once by `encode`; 64 MB in float32."""

_LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class SaeConfig:
    """What a dictionary is and what it was trained on; saved with it and checked on loading.

    Of the model, what is not known is empty.
    """

    architecture: str
    """`topk` (k largest pre-activations, then ReLU), `signed_topk` (without ReLU: negative ones reconstruct, but do not
    fire), `jumprelu` (those above a threshold) or `standard` (ReLU)."""
    d_in: int
    """Width of the residual stream."""
    n_latents: int
    k: int | None = None
    """Most latents active per row; None where the architecture sets no limit."""
    layer: int | None = None
    """0-based layer whose residual stream (after the block) it reads; None if not known."""
    model: str = ""
    model_fingerprint: str = ""
    protocol: str = ""
    input_norm: str = "none"
    """`layer_norm`: each row is brought to mean 0 and standard deviation 1 before it is encoded. Activations and
    `decode` are then in units of the normalised row, so a latent is no fixed direction of the residual."""
    reads: str = ""
    """Name of the place it was trained to read, where the file tells."""
    writes: str = ""
    """Name of the place it reconstructs; a transcoder writes elsewhere than it reads."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping, JSON-able."""

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ScircuitError(
                f"unknown SAE architecture {self.architecture!r}; choose one of {', '.join(ARCHITECTURES)}."
            )
        if self.d_in < 1 or self.n_latents < 1:
            raise ScircuitError(
                f"an SAE needs at least one input and one latent, not d_in={self.d_in} and "
                f"n_latents={self.n_latents}; correct its configuration."
            )
        if self.input_norm not in ("none", "layer_norm"):
            raise ScircuitError(f"unknown input_norm {self.input_norm!r} of an SAE; choose none or layer_norm.")
        if self.architecture in ("topk", "signed_topk") and not 1 <= (self.k or 0) <= self.n_latents:
            raise ScircuitError(
                f"a topk SAE of {self.n_latents} latents needs k between 1 and {self.n_latents}, not {self.k}; "
                "give the k that it was trained with."
            )


@runtime_checkable
class SparseAutoencoder(Protocol):
    """What tracing and feature description ask of a dictionary.

    `W_enc` is `[d_in, n_latents]`, `b_enc` `[n_latents]`, `W_dec` `[n_latents, d_in]` (rows of unit norm where
    it was trained here), `b_dec` `[d_in]`. A latent fires at a row iff its activation is > 0.
    """

    @property
    def config(self) -> SaeConfig: ...  # noqa: D102
    @property
    def d_in(self) -> int: ...  # noqa: D102
    @property
    def n_latents(self) -> int: ...  # noqa: D102
    @property
    def W_enc(self) -> Tensor: ...  # noqa: D102, N802
    @property
    def b_enc(self) -> Tensor: ...  # noqa: D102
    @property
    def W_dec(self) -> Tensor: ...  # noqa: D102, N802
    @property
    def b_dec(self) -> Tensor: ...  # noqa: D102

    def encode(self, h: Tensor) -> Latents:
        """Active latents of residuals `[row, d_in]`."""
        ...

    def pre_activations(self, h: Tensor) -> Tensor:
        """`[row, n_latents]`, before any latent is silenced."""
        ...

    def decode(self, latents: Latents) -> Tensor:
        """Reconstructed residuals `[row, d_in]`."""
        ...


def require_traceable(sae: SparseAutoencoder) -> None:
    """Refuse a dictionary whose latents are not fixed directions of the residual stream that it reads."""
    config = sae.config
    if config.input_norm != "none":
        raise ScircuitError(
            f"an SAE with {config.input_norm} on its input cannot be ablated exactly, because its latents are no fixed "
            "directions of the residual stream; train one without it."
        )
    if config.reads != config.writes:
        raise ScircuitError(
            f"a transcoder from {config.reads} to {config.writes} cannot be traced as an SAE, because it writes "
            "elsewhere than it reads; use an SAE of the residual stream."
        )
    if config.reads and config.layer is None:
        raise ScircuitError(
            f"an SAE of {config.reads} cannot be traced: not known to be the residual stream after a block; "
            "use such an SAE, or name its layer when reading it if it is one."
        )


class LinearSAE(nn.Module):
    """A dictionary with a linear encoder and a linear decoder; subclasses choose the active latents.

    pre = (h - mean) W_enc + b_enc;  reconstruction = z W_dec + b_dec + mean. The mean is kept apart from the
    biases because folding it into them costs precision when it is large beside the spread of h.
    """

    def __init__(
        self,
        config: SaeConfig,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        mean: Tensor | None = None,
    ) -> None:
        super().__init__()
        shapes = {
            "W_enc": (W_enc, (config.d_in, config.n_latents)),
            "b_enc": (b_enc, (config.n_latents,)),
            "W_dec": (W_dec, (config.n_latents, config.d_in)),
            "b_dec": (b_dec, (config.d_in,)),
            "mean": (torch.zeros_like(b_dec) if mean is None else mean, (config.d_in,)),
        }
        for name, (tensor, shape) in shapes.items():
            if tuple(tensor.shape) != shape:
                raise ScircuitError(
                    f"{name} of the SAE has shape {tuple(tensor.shape)}, its configuration says {shape}; "
                    "weights and configuration belong to different dictionaries."
                )
            if not bool(torch.isfinite(tensor).all()):
                raise ScircuitError(
                    f"{name} of the SAE holds NaN or infinity; the training diverged (lower its learning rate) or the "
                    "file is damaged."
                )
            setattr(self, name, nn.Parameter(tensor.detach().clone(), requires_grad=False))
        self.config = config

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    mean: nn.Parameter

    def normalise(self, h: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Rows as the encoder takes them, and the mean and the spread taken out (None where none are)."""
        h = h.to(self.W_enc.dtype)
        if self.config.input_norm == "none":
            return h, None, None
        mu = h.mean(dim=-1, keepdim=True)
        spread = h.std(dim=-1, keepdim=True)
        return (h - mu) / (spread + _LAYER_NORM_EPS), mu, spread

    @property
    def d_in(self) -> int:
        """Width of the residual stream."""
        return self.config.d_in

    @property
    def n_latents(self) -> int:
        """Size of the dictionary."""
        return self.config.n_latents

    def pre_activations(self, h: Tensor) -> Tensor:
        """Pre-activations `[row, n_latents]` of residuals `[row, d_in]`; differentiable, not chunked."""
        if h.ndim != 2 or h.shape[1] != self.d_in:
            raise ScircuitError(
                f"an SAE of width {self.d_in} was given residuals of shape {tuple(h.shape)}; "
                f"pass [row, {self.d_in}] of the layer that it was trained on."
            )
        return torch.addmm(self.b_enc, self.normalise(h)[0] - self.mean, self.W_enc)

    def encode(self, h: Tensor) -> Latents:
        """Active latents of residuals `[row, d_in]`, in chunks of rows so that memory stays bounded."""
        rows = max(1, _CHUNK_ELEMENTS // self.n_latents)
        return concatenate([self._activate(self.pre_activations(chunk)) for chunk in h.split(rows)])

    def decode(self, latents: Latents) -> Tensor:
        """Reconstructed residuals `[row, d_in]`; gathers only the rows of `W_dec` that are active."""
        if latents.values.shape[1] == 0:
            return (self.b_dec + self.mean).expand(latents.values.shape[0], -1)
        values = latents.values.to(self.W_dec.dtype)
        out = functional.embedding_bag(latents.indices, self.W_dec, per_sample_weights=values, mode="sum")
        return out + self.b_dec + self.mean

    def forward(self, h: Tensor) -> Tensor:
        """Reconstruction of residuals `[row, d_in]`, in their own units."""
        decoded = self.decode(self.encode(h))
        _, mu, spread = self.normalise(h)
        return decoded if mu is None or spread is None else decoded * spread + mu

    def _activate(self, pre: Tensor) -> Latents:
        raise NotImplementedError
