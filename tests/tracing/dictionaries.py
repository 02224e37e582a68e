"""Random dictionaries for the tiny models."""

import torch

from scircuit.sae.base import SaeConfig
from scircuit.sae.topk import TopKSAE


def random_saes(n_latents: int, k: int = 6, *, d_model: int = 32, n_layers: int = 4, seed: int = 0):
    """One per layer: decoder rows of unit norm, the encoder their transpose, no biases."""
    g = torch.Generator().manual_seed(seed)
    saes = {}
    for layer in range(n_layers):
        decoder = torch.nn.functional.normalize(torch.randn(n_latents, d_model, generator=g), dim=1)
        config = SaeConfig("topk", d_model, n_latents, k=k, layer=layer)
        saes[layer] = TopKSAE(config, decoder.T.clone(), torch.zeros(n_latents), decoder, torch.zeros(d_model))
    return saes
