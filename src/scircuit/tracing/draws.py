"""Which decoys stand beside the sources of a trace: some for each, or some for the layer where most of it is traced."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from scircuit.cells.tokens import TokenStore
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.engines.decoys import (
    alike_to_encoders,
    encoder_basis,
    encoder_directions,
    live_latents,
    residual_roots,
)
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.settings import TraceSettings

_FEWEST = 96
"""Decoys of a layer whose sources are too many for decoys of their own, however small the dictionary."""


def is_exhaustive(n_sources: int, n_latents: int) -> bool:
    """Whether a layer counts as traced whole."""
    return 2 * n_sources >= n_latents


def draws(sources: Sequence[int], n_latents: int, n_random: int, seed: int) -> dict[int, list[int]]:
    """Numbers of the draws per source, ascending; sources without any are left out.

    `n_random` for each source; for a layer that is traced whole one for every tenth source (but at least 96), over the
    firing patterns of sources drawn at random, so that decoys cost a tenth of the trace.
    """
    if not is_exhaustive(len(sources), n_latents) or not n_random:
        return {int(f): list(range(1, n_random + 1)) for f in sources if n_random}
    n = min(n_random * len(sources), max(_FEWEST, len(sources) // 10))
    rng = np.random.default_rng([seed, 9])
    order = np.concatenate([rng.permutation(np.asarray(sources)) for _ in range(-(-n // len(sources)))])[:n]
    found: dict[int, list[int]] = {}
    for number, feature in enumerate(order.tolist()):
        # Numbered in turn, so that a fourth of them is held out although each source has few.
        lap = number // len(sources)
        found.setdefault(feature, []).append(4 * lap + number % 4 + 1)
    return {feature: sorted(found[feature]) for feature in sorted(found)}


def n_decoys(sources: Sequence[int], n_latents: int, n_random: int, seed: int) -> int:
    """Decoys of a layer."""
    return sum(map(len, draws(sources, n_latents, n_random, seed).values()))


def decoys_of(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    sources: Mapping[int, Sequence[int]],
    settings: TraceSettings,
) -> dict[int, dict[int, list[Intervention]]]:
    """Per source layer the decoys of each source that has some."""
    wanted = {layer: draws(f, saes[layer].n_latents, settings.n_random, settings.seed) for layer, f in sources.items()}
    layers = [layer for layer, found in wanted.items() if found]
    if settings.decoy == "covariance":
        roots = residual_roots(model, cells, layers, settings.seed)
    elif settings.decoy == "dictionary":
        live = live_latents(model, saes, cells, layers, settings.seed)
    elif settings.decoy == "encoder_cosine":
        bases = {layer: _encoder_bases(layer, wanted[layer], saes) for layer in layers}

    def decoy(layer: int, feature: int, draw: int) -> Intervention:
        rng = np.random.default_rng([settings.seed, layer, feature, draw, 10])
        if settings.decoy == "covariance":
            direction = roots[layer] @ torch.from_numpy(rng.standard_normal(len(roots[layer])))
            return Intervention((feature,), "covariance", draw=draw, direction=tuple(direction.tolist()))
        if settings.decoy == "encoder_cosine":
            row, drawn = saes[layer].W_dec[feature], torch.from_numpy(rng.standard_normal(model.d_model))
            direction = alike_to_encoders(row, bases[layer][feature], drawn)
            return Intervention((feature,), "encoder_cosine", draw=draw, direction=tuple(direction.tolist()))
        if settings.decoy == "dictionary":
            others = [f for f in live[layer] if f != feature]
            if not others:
                raise ScircuitError(f"Beside latent {feature} of layer {layer} no other fires; use decoy='radial'.")
            return Intervention((feature,), "dictionary", draw=draw, instead=(int(rng.choice(others)),))
        return Intervention((feature,), settings.decoy, draw=draw, seed=settings.seed)

    return {
        layer: {feature: [decoy(layer, feature, draw) for draw in numbers] for feature, numbers in found.items()}
        for layer, found in wanted.items()
    }


def _encoder_bases(
    layer: int, features: Iterable[int], saes: Mapping[int, SparseAutoencoder]
) -> dict[int, torch.Tensor]:
    """`encoder_basis` of each latent of a layer over all later dictionaries."""
    later = {i: sae for i, sae in saes.items() if i > layer}
    hidden = [i for i, sae in later.items() if not hasattr(sae, "W_enc")]
    if hidden:
        raise ScircuitError(f"The dictionary of layer {hidden[0]} does not show its encoder; use decoy='radial'.")
    directions = encoder_directions([sae.W_enc for sae in later.values()])
    return {feature: encoder_basis(saes[layer].W_dec[feature], directions) for feature in features}


def with_decoys(features: Sequence[int], decoys: Mapping[int, Sequence[Intervention]]) -> list[Intervention]:
    """The ablation of each source followed by its decoys."""
    out = []
    for feature in features:
        out += [Intervention((int(feature),)), *decoys.get(int(feature), ())]
    return out
