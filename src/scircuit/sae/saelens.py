"""One dictionary as a SAELens directory: `cfg.json`, `sae_weights.safetensors`, `sparsity.safetensors`.

SAELens has no place for a mean that is subtracted before encoding, so it is folded into the biases (in float64).
Our unfolded numbers lie beside them in `centring.safetensors`, which SAELens does not open: what we save, we
load back bit for bit.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scircuit._io import atomic, read_json, write_json
from scircuit.errors import ScircuitError
from scircuit.sae.base import LinearSAE, SaeConfig
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.sae.topk import TopKSAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SPARSITY, CENTRING = "sparsity.safetensors", "centring.safetensors"
_SAELENS_VERSION = "6.54.12"
_ARCHITECTURES = ("topk", "jumprelu", "standard")
_REQUIRED = ("architecture", "d_in", "d_sae", "dtype", "apply_b_dec_to_input")


def write_saelens(
    folder: str | Path, sae: LinearSAE, *, config: SaeConfig | None = None, log_sparsity: Tensor | None = None
) -> list[Path]:
    """Write a dictionary with every key that SAELens reads; returns the files written.

    `config` replaces the dictionary's own; `log_sparsity` is log10 of each latent's firing frequency,
    `[n_latents]`.
    """
    folder = Path(folder)
    weights = {name: tensor.detach().cpu() for name, tensor in sae.named_parameters()}
    mean = weights.pop("mean").double()
    if sae.config.architecture not in _ARCHITECTURES or sae.config.input_norm != "none":
        raise ScircuitError(
            f"a {sae.config.architecture} SAE with input_norm {sae.config.input_norm!r} has no exact SAELens form; "
            f"{', '.join(_ARCHITECTURES)} without normalisation can be saved."
        )
    if sae.config.architecture == "standard":
        weights.pop("threshold")
    folded = dict(weights)
    folded["b_enc"] = (weights["b_enc"].double() - mean @ weights["W_enc"].double()).to(weights["b_enc"].dtype)
    folded["b_dec"] = (weights["b_dec"].double() + mean).to(weights["b_dec"].dtype)
    written = [_write_tensors(folder / WEIGHTS, folded)]
    unfolded = {"mean": mean.to(weights["b_dec"].dtype), "b_enc": weights["b_enc"], "b_dec": weights["b_dec"]}
    written.append(_write_tensors(folder / CENTRING, unfolded))
    if log_sparsity is not None:
        if tuple(log_sparsity.shape) != (sae.n_latents,):
            raise ScircuitError(
                f"log_sparsity has shape {tuple(log_sparsity.shape)}; give one number for each of the "
                f"{sae.n_latents} latents."
            )
        written.append(_write_tensors(folder / SPARSITY, {"sparsity": log_sparsity.cpu()}))
    write_json(folder / CONFIG, _configuration(config or sae.config, sae.W_enc.dtype))
    return [*written, folder / CONFIG]


def _configuration(config: SaeConfig, dtype: torch.dtype) -> dict[str, Any]:
    values: dict[str, Any] = {
        "architecture": config.architecture,
        "d_in": config.d_in,
        "d_sae": config.n_latents,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if config.architecture == "topk":
        values |= {"k": config.k, "rescale_acts_by_decoder_norm": False}
    hook = None if config.layer is None else f"blocks.{config.layer}.hook_resid_post"
    values["metadata"] = {
        "sae_lens_version": _SAELENS_VERSION,
        "sae_lens_training_version": None,
        "model_name": config.model,
        "hook_name": hook,
        "hook_head_index": None,
        "context_size": None,
        "prepend_bos": False,
        "model_class_name": "scircuit",
        "dataset_path": None,
        "neuronpedia_id": None,
        "scircuit": {
            "layer": config.layer,
            "model_fingerprint": config.model_fingerprint,
            "protocol": config.protocol,
            "metadata": dict(config.metadata),
        },
    }
    return values


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    with atomic(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; a missing or truncated one raises `ScircuitError` naming it."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ScircuitError(f"{path} does not exist; the SAE folder is incomplete, copy it again.") from None
    except SafetensorError as error:
        raise ScircuitError(f"{path} is truncated or no safetensors file ({error}); copy it again.") from None


def read_saelens(folder: str | Path) -> LinearSAE:
    """Read a SAELens directory, ours or another's: topk, jumprelu (so BatchTopK and Matryoshka too), standard.

    A key that decides the result (`k`, `apply_b_dec_to_input`) must be there: SAELens would silently assume one.
    """
    folder = Path(folder)
    cfg = read_json(folder / CONFIG)
    weights = read_tensors(folder / WEIGHTS)
    sae = from_saelens(cfg, weights, str(folder))
    if (folder / CENTRING).exists():
        _unfold(sae, read_tensors(folder / CENTRING), folder)
    return sae


def from_saelens(cfg: Any, weights: Mapping[str, Tensor], source: str) -> LinearSAE:
    """A dictionary from a SAELens configuration and its weights; `source` names it in errors."""
    config = _parse(cfg, source)
    names = {"W_enc", "b_enc", "W_dec", "b_dec"} | ({"threshold"} if config.architecture == "jumprelu" else set())
    require_tensors(weights, names, f"{source} (a {config.architecture} SAE)")
    parts = {name: weights[name].float() for name in names}
    b_dec, mean = (None, parts["b_dec"]) if cfg["apply_b_dec_to_input"] else (parts["b_dec"], None)
    if cfg.get("rescale_acts_by_decoder_norm", False):
        parts = scale_to_unit_decoder(parts)
    # SAELens applies ReLU before the jump, so a threshold below 0 acts as 0.
    threshold = parts["threshold"].clamp_min(0) if "threshold" in parts else None
    return build_sae(config, parts["W_enc"], parts["b_enc"], parts["W_dec"], b_dec, mean, threshold)


def build_sae(
    config: SaeConfig,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor | None,
    mean: Tensor | None,
    threshold: Tensor | None = None,
) -> LinearSAE:
    """In float32; `mean` is subtracted before encoding and, like `b_dec`, added after decoding (None: 0)."""
    # As wide as the file's own tensors: the configuration is held to them only once they are there.
    zeros = torch.zeros(W_dec.shape[-1:], device=W_enc.device)
    biases = (zeros if b_dec is None else b_dec.float(), zeros if mean is None else mean.float())
    arguments = (config, W_enc.float(), b_enc.float(), W_dec.float(), *biases)
    if config.architecture in ("topk", "signed_topk"):
        return TopKSAE(*arguments)
    return JumpReLUSAE(*arguments, threshold=threshold)


def require_tensors(tensors: Mapping[str, Tensor], names: set[str], source: str) -> None:
    """Refuse a set of tensors that is not exactly the one named."""
    if tensors.keys() != names:
        missing, left = sorted(names - tensors.keys()), sorted(tensors.keys() - names)
        raise ScircuitError(
            f"{source} must hold the tensors {', '.join(sorted(names))}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(left) or 'none'}."
        )


def scale_to_unit_decoder(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function with decoder rows of unit norm, for dictionaries that multiply activations by the norm."""
    norm = parts["W_dec"].norm(dim=1)
    scaled = {
        "W_enc": parts["W_enc"] * norm,
        "b_enc": parts["b_enc"] * norm,
        "W_dec": parts["W_dec"] / norm.unsqueeze(1),
    }
    if "threshold" in parts:
        scaled["threshold"] = parts["threshold"] * norm
    return {**parts, **scaled}


def _unfold(sae: LinearSAE, unfolded: Mapping[str, Tensor], folder: Path) -> None:
    """Replace the folded biases by the exact ones, provided that they are the same dictionary's."""
    require_tensors(unfolded, {"mean", "b_enc", "b_dec"}, str(folder / CENTRING))
    mean, b_dec = unfolded["mean"].double(), unfolded["b_dec"].double()
    b_enc = unfolded["b_enc"].double() - mean @ sae.W_enc.double()
    for name, tensor in (("b_enc", b_enc), ("b_dec", b_dec + mean)):
        folded = getattr(sae, name)
        if tensor.shape != folded.shape or not torch.allclose(tensor.float(), folded, rtol=1e-4, atol=1e-5):
            raise ScircuitError(
                f"{folder / CENTRING} does not belong to {WEIGHTS} beside it ({name} differs); "
                f"delete {CENTRING} if the weights were replaced on purpose."
            )
    for name, tensor in unfolded.items():
        getattr(sae, name).data = tensor


def _parse(cfg: Any, source: str) -> SaeConfig:
    if not isinstance(cfg, dict):
        raise ScircuitError(f"{source} has no SAELens configuration; {CONFIG} must be a JSON object.")
    required = [*_REQUIRED, *(["k"] if cfg.get("architecture") == "topk" else [])]
    missing = [key for key in required if key not in cfg]
    if missing:
        raise ScircuitError(
            f"{CONFIG} of {source} lacks {', '.join(missing)}; without it the SAE would be read wrongly, so add the "
            "value that it was trained with."
        )
    if cfg["architecture"] not in _ARCHITECTURES:
        raise ScircuitError(
            f"{source} holds a {cfg['architecture']!r} SAE; {', '.join(_ARCHITECTURES)} ones can be read."
        )
    normalisation = cfg.get("normalize_activations", "none")
    if normalisation not in ("none", "layer_norm"):
        raise ScircuitError(
            f"{source} has normalize_activations = {normalisation!r}, which depends on data that are not in the file; "
            "fold it into the weights with SAELens first."
        )
    if cfg.get("reshape_activations", "none") != "none":
        raise ScircuitError(
            f"{source} has reshape_activations = {cfg['reshape_activations']!r}: it reads attention heads; "
            "use an SAE of the residual stream."
        )
    metadata = dict(cfg.get("metadata") or {})
    ours = metadata.pop("scircuit", None) or {}
    hook = metadata.get("hook_name") or ""
    named = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", hook)
    return SaeConfig(
        cfg["architecture"],
        cfg["d_in"],
        cfg["d_sae"],
        k=cfg.get("k"),
        layer=ours.get("layer", int(named[1]) if named else None),
        model=metadata.get("model_name") or "",
        model_fingerprint=ours.get("model_fingerprint", ""),
        protocol=ours.get("protocol", ""),
        input_norm=normalisation,
        reads=hook,
        writes=hook,
        metadata=ours.get("metadata", metadata),
    )
