"""Integrated gradients of a behaviour in catalogue cells of a run, and the means to which latents are silenced."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from scircuit.cells.tokens import TokenStore
from scircuit.circuits.schema import LATENT
from scircuit.config import RunConfig
from scircuit.runs.tokens import drawn_cells
from scircuit.tracing.probes.attribution import attributions
from scircuit.tracing.probes.behaviours import behaviour
from scircuit.tracing.probes.kept import Means, position_means
from scircuit.tracing.setup import Setup

N_CELLS = 50
"""Catalogue cells over which gradients are averaged."""


def means_of(latents: pd.DataFrame, setup: Setup) -> Means:
    """Mean activation of every latent over the gene positions of the catalogue cells, from its firing rate there."""
    mean = (latents["frequency"] * latents["mean_activation"].fillna(0)).to_numpy(np.float64)
    rates = {layer: np.zeros(sae.n_latents) for layer, sae in setup.saes.items()}
    for layer, rate in rates.items():
        mine = (latents["layer"] == layer).to_numpy()
        rate[latents.loc[mine, "feature"].to_numpy(np.int64)] = mean[mine]
    return position_means(setup.saes, rates)


def source_cells(store: TokenStore, config: RunConfig) -> np.ndarray:
    """Rows of the catalogue cells by whose gradients sources are chosen; none where another rule chooses them."""
    if config.sources.rule != "attribution":
        return np.zeros(0, dtype=np.int64)
    return drawn_cells(store, config, "catalogue", N_CELLS, 12)


def with_attribution(
    latents: pd.DataFrame, of: str, setup: Setup, cells: TokenStore, seed: int, ablation: str = "mean"
) -> pd.DataFrame:
    """Latents with the column `attribution` to the behaviour `of` in the first of `cells`; 0 where one has no say.

    The gradients follow the latents to where `ablation` brings them.
    """
    means = means_of(latents, setup)
    if ablation == "zero":
        means = {layer: torch.zeros_like(mean) for layer, mean in means.items()}
    some = replace(setup, cells=cells.subset(np.arange(min(N_CELLS, len(cells)))))
    found = attributions(some, behaviour(of, some, cells, seed), means)
    return latents.merge(found, on=LATENT, how="left").fillna({"attribution": 0.0})
