"""Any object with `encode`, `decode` and `W_dec` as a dictionary, for instance a SAELens `SAE`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scircuit._io import sha256_of
from scircuit.errors import ScircuitError
from scircuit.sae.base import LinearSAE, SaeConfig, SparseAutoencoder
from scircuit.sae.latents import Latents
from scircuit.sae.saelens import from_saelens

_N_PROBES = 64


def as_sae(obj: Any, *, layer: int | None = None) -> SparseAutoencoder:
    """The dictionary itself, or an object of another library behind the same interface.

    A SAELens object of an architecture that we have is copied exactly, weights and all. Of anything else (a gated
    one too) only `encode(h)` (dense `[row, n_latents]`), `decode(z)` and `W_dec` (`[n_latents, d_in]`) are used.
    `layer` is the 0-based layer that it reads, where the object does not tell.
    """
    if isinstance(obj, SparseAutoencoder):
        return _checked_layer(obj, layer)
    missing = [name for name in ("encode", "decode", "W_dec") if not hasattr(obj, name)]
    if missing:
        raise ScircuitError(
            f"a {type(obj).__name__} cannot serve as an SAE: it lacks {', '.join(missing)}; pass an object with "
            "encode, decode and W_dec."
        )
    if type(obj).__module__.startswith("sae_lens.") and not _is_plain_gated(obj.cfg):
        sae = from_saelens(obj.cfg.to_dict(), obj.state_dict(), f"the SAELens {type(obj).__name__}")
        sae.to(obj.W_dec.device)
        if layer is not None and sae.config.layer is None:
            sae.config = replace(sae.config, layer=layer)
        return _checked_layer(sae, layer)
    return ForeignSAE(obj, layer)


def as_saes(saes: Mapping[int, Any]) -> dict[int, SparseAutoencoder]:
    """Layer -> dictionary for objects of any library (see `as_sae`), in ascending order of layers."""
    return {layer: as_sae(saes[layer], layer=layer) for layer in sorted(saes)}


def sae_fingerprint(sae: SparseAutoencoder) -> str:
    """Hash of what a dictionary computes: its weights, or, where an object hides them, what it does to probe rows."""
    if isinstance(sae, LinearSAE):
        config = sae.config
        weights = [sae.state_dict()[name].float().cpu().numpy() for name in sorted(sae.state_dict())]
        return sha256_of([config.architecture, config.k, config.input_norm], *weights)
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(_N_PROBES, sae.d_in, generator=generator).to(sae.W_dec)
    scale = sae.W_dec.norm(dim=1).mean() * sae.d_in**0.5
    seen = sae.encode(probes * scale)
    return sha256_of(*(t.detach().float().cpu().numpy() for t in (sae.W_dec, seen.dense(sae.n_latents))))


def _checked_layer(sae: SparseAutoencoder, layer: int | None) -> SparseAutoencoder:
    own = sae.config.layer
    if layer is not None and own is not None and own != layer:
        raise ScircuitError(f"an SAE of layer {own} was given for layer {layer}; file it under its own layer.")
    return sae


def _is_plain_gated(cfg: Any) -> bool:
    """A SAELens SAE that we cannot copy, but whose own `encode` and `decode` work on residuals as they are."""
    return cfg.architecture() == "gated" and (cfg.normalize_activations, cfg.reshape_activations) == ("none", "none")


class ForeignSAE:
    """An object with dense `encode` and `decode`, used as it is; see `as_sae`."""

    def __init__(self, obj: Any, layer: int | None = None) -> None:
        self._obj = obj
        self.W_dec: Tensor = obj.W_dec.detach()
        if self.W_dec.ndim != 2:
            raise ScircuitError(
                f"W_dec of a {type(obj).__name__} has shape {tuple(self.W_dec.shape)}; it must be [n_latents, d_in]."
            )
        self.n_latents, self.d_in = self.W_dec.shape
        self.config = SaeConfig(
            "standard", self.d_in, self.n_latents, layer=layer, metadata={"class": type(obj).__qualname__}
        )
        self._encode_dense(self.W_dec.new_zeros(1, self.d_in))
        self._check_linear()

    @property
    def W_enc(self) -> Tensor:  # noqa: N802
        """The object's own, where it has one of shape `[d_in, n_latents]`."""
        return self._member("W_enc", (self.d_in, self.n_latents))

    @property
    def b_enc(self) -> Tensor:
        """The object's own, where it has one of shape `[n_latents]`."""
        return self._member("b_enc", (self.n_latents,))

    @property
    def b_dec(self) -> Tensor:
        """The object's own, where it has one of shape `[d_in]`."""
        return self._member("b_dec", (self.d_in,))

    def _check_linear(self) -> None:
        """Ablation subtracts z W_dec[f], so one latent alone must add just that to the reconstruction."""
        n_probed = min(8, self.n_latents)
        probes = self.W_dec.new_zeros(n_probed + 1, self.n_latents)
        probes[:-1].fill_diagonal_(2.0)
        decoded = self._obj.decode(probes).detach()
        if not decoded.shape == (n_probed + 1, self.d_in) or not torch.allclose(
            decoded[:-1] - decoded[-1], 2 * self.W_dec[:n_probed], rtol=1e-3, atol=1e-4
        ):
            raise ScircuitError(
                f"decode of a {type(self._obj).__name__} does not add z * W_dec[f] for latent f, so its latents "
                "cannot be ablated exactly; pass an SAE with a linear decoder."
            )

    def _member(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = getattr(self._obj, name, None)
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            # AttributeError, so that `hasattr` and the interface check tell the truth.
            raise AttributeError(f"{type(self._obj).__name__} has no {name} of shape {shape}")
        return tensor.detach()

    def pre_activations(self, h: Tensor) -> Tensor:
        """Refused: what the object does before its activation function is not known."""
        raise ScircuitError(
            f"a {type(self._obj).__name__} does not tell its pre-activations; save it in a format that read_sae reads."
        )

    def encode(self, h: Tensor) -> Latents:
        """Positive activations of residuals `[row, d_in]`, as wide as the row that has most."""
        dense = self._encode_dense(h)
        width = int((dense > 0).sum(dim=1).max()) if len(dense) else 0
        values, indices = dense.topk(width, dim=1)
        return Latents(values.clamp_min(0), indices)

    def decode(self, latents: Latents) -> Tensor:
        """Reconstructed residuals `[row, d_in]`."""
        return self._obj.decode(latents.dense(self.n_latents))

    def _encode_dense(self, h: Tensor) -> Tensor:
        dense = self._obj.encode(h)
        if not isinstance(dense, Tensor) or tuple(dense.shape) != (len(h), self.n_latents):
            found = tuple(dense.shape) if isinstance(dense, Tensor) else type(dense).__name__
            raise ScircuitError(
                f"encode of a {type(self._obj).__name__} gives {found} for {len(h)} rows; it must give a tensor "
                f"[row, {self.n_latents}], one column for each row of W_dec."
            )
        return dense.to_dense() if dense.is_sparse else dense
