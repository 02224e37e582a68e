"""Sparse autoencoders: variants, training, files, quality. Tensors in, tensors out; the settings need no torch."""

from importlib import import_module
from typing import Any

_NAMES = {
    "JumpReLUSAE": "jumprelu",
    "Latents": "latents",
    "LinearSAE": "base",
    "QualityAccumulator": "metrics",
    "SaeConfig": "base",
    "SaeQuality": "metrics",
    "SaeTraining": "settings",
    "SparseAutoencoder": "base",
    "TopKSAE": "topk",
    "as_sae": "adapter",
    "as_saes": "adapter",
    "load_saes": "checkpoint",
    "loss_recovered": "metrics",
    "mix": "mixing",
    "read_manifest": "checkpoint",
    "read_sae": "readers",
    "read_saes": "readers",
    "require_traceable": "base",
    "save_saes": "checkpoint",
    "train_many": "training",
    "train_saes": "training",
}
"""The room's names, each loaded when first used, so that reading a config loads no torch."""


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'scircuit.sae' has no attribute {name!r}")
    return getattr(import_module(f"scircuit.sae.{_NAMES[name]}"), name)
