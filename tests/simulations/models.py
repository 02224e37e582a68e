"""Models whose latents stand for genes, alike for reasons that are no shared latent, and some that are shared."""

import numpy as np
import pandas as pd

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS

N_GENES, N_LATENTS = 400, 150


def two_models(
    rng: np.random.Generator, n_modules: int = 0, n_shared: int = 0, noise: float = 0.3
) -> tuple[Artefacts, Artefacts]:
    """Two models of the same genes; every latent loads on 15 to 60 of them, abundant ones first.

    Parameters
    ----------
    n_modules
        Sets of genes that go together in both models, whatever latent holds them.
    n_shared
        Latents, the first of both models, that stand for the same genes in both, measured with `noise`.
    """
    abundance = np.exp(1.2 * rng.standard_normal(N_GENES))
    modules = rng.standard_normal((n_modules, N_GENES))
    own = [_loadings(rng, abundance, modules) for _ in range(2)]
    own[1][:n_shared] = own[0][:n_shared] * np.exp(noise * rng.standard_normal((n_shared, N_GENES)))
    return _artefacts(own[0], "a"), _artefacts(own[1], "b")


def _loadings(rng: np.random.Generator, abundance: np.ndarray, modules: np.ndarray) -> np.ndarray:
    """Summed activation of each latent on each gene, `[latent, gene]`."""
    loadings = np.zeros((N_LATENTS, N_GENES))
    for latent in range(N_LATENTS):
        chance = abundance
        if len(modules):
            chance = abundance * np.exp(2 * rng.standard_normal() * modules[rng.integers(len(modules))])
        k = rng.integers(15, 60)
        genes = rng.choice(N_GENES, k, replace=False, p=chance / chance.sum())
        loadings[latent, genes] = rng.integers(1, 50, k) * rng.gamma(2, 1, k)
    return loadings


def _artefacts(loadings: np.ndarray, name: str) -> Artefacts:
    latent, gene = np.nonzero(loadings)
    genes = pd.DataFrame({
        "layer": 0, "feature": latent, "gene": [f"G{g}" for g in gene], "n_firings": 1,
        "mean_activation": loadings[latent, gene],
    })  # fmt: skip
    edges = pd.DataFrame({"source": 0, "source_feature": 0, "target": 0, "target_feature": np.arange(len(loadings))})
    edges = edges.set_axis(ENDS, axis=1)
    circuit = Circuit(edges, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), {})
    return Artefacts.in_memory(circuit, genes, name=name, model=name)
