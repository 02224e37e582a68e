"""Untrained copies of a model: the same shapes and spreads of weights, in which nothing was learnt."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scircuit._io import sha256_of
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel

TRAINED = "trained"


def _redrawn(weight: Tensor, g: torch.Generator) -> Tensor:
    return weight.mean() + weight.std() * torch.randn(weight.shape, generator=g).to(weight)


def _permuted(weight: Tensor, g: torch.Generator) -> Tensor:
    return weight.flatten()[torch.randperm(weight.numel(), generator=g).to(weight.device)].view(weight.shape)


_WAYS = {"redrawn": _redrawn, "permuted": _permuted}
WEIGHTS: Mapping[str, str] = {
    TRAINED: "as they are",
    "redrawn": "each tensor drawn anew from a normal distribution of its own mean and SD (arXiv 2501.17727)",
    "permuted": "the values of each tensor in a random order",
}
"""What the weights of a run's model may be."""


@torch.inference_mode()
def untrain(model: FoundationModel, weights: str, seed: int = 0) -> None:
    """Make a model an untrained one of its shape, in place; another fingerprint keeps its dictionaries apart.

    Raises
    ------
    ScircuitError
        For a word that is none of `WEIGHTS`, or a model that does not show its weights as a torch module.
    """
    if weights not in WEIGHTS:
        raise ScircuitError(f"weights={weights!r} is unknown; it may be {', '.join(WEIGHTS)}.")
    if weights == TRAINED:
        return
    module = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    if not isinstance(module, nn.Module):
        raise ScircuitError(f"{model.name} shows no torch module whose weights could be drawn anew (`module`).")
    g = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        if weight.numel() > 1:  # one number has no spread
            weight.copy_(_WAYS[weights](weight, g))
    model.fingerprint = sha256_of(model.fingerprint, weights, seed)
