"""Latents of two models that share abundances, or gene modules as well, but no latent; and models that share some."""

import numpy as np
import pandas as pd
import pytest

from scircuit.analysis.conditions import Condition
from scircuit.analysis.feature_matching import match_latents
from scircuit.circuits.circuit import Circuit

pytestmark = pytest.mark.slow
GENES, LAYERS = 400, 3


class World:
    """Gene abundances and modules that both models see; `shared` log profiles that both have latents for."""

    def __init__(self, rng, modules: bool, n_latents: int, n_shared: int):
        self.rng, self.n_latents = rng, n_latents
        self.abundance = 1.2 * rng.standard_normal(GENES)
        self.modules = rng.standard_normal((6, GENES)) if modules else np.zeros((6, GENES))
        self.shared = [self.profile() for _ in range(n_shared)]

    def profile(self):
        module = 2 * self.modules[self.rng.integers(6)] * self.rng.standard_normal()
        return self.abundance + module + self.rng.standard_normal(GENES)

    def model(self, name: str) -> Condition:
        profiles = self.shared + [self.profile() for _ in range(self.n_latents - len(self.shared))]
        rows = []
        for latent, profile in enumerate(profiles):
            mass = np.exp(profile + 0.3 * self.rng.standard_normal(GENES))
            genes = np.argsort(-mass)[: self.rng.integers(30, 100)]
            rows.append(pd.DataFrame({
                "layer": latent % LAYERS, "feature": latent, "gene": [f"G{g}" for g in genes], "n_firings": 10,
                "mean_activation": mass[genes] / mass.sum(),
            }))  # fmt: skip
        loadings = pd.concat(rows, ignore_index=True)
        latent = np.arange(self.n_latents)
        ends = {"source_layer": 0, "source_feature": 0, "target_layer": latent % LAYERS, "target_feature": latent}
        none = pd.DataFrame()
        return Condition(name, name, Circuit(pd.DataFrame(ends), none, none, none, none, {}), loadings)


@pytest.mark.parametrize("modules", [False, True])
def test_nothing_matches_where_nothing_is_shared(modules):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(30):
        world = World(rng, modules, 150, n_shared=0)
        found.append(match_latents(world.model("a"), world.model("b")))
    # One match is a false one: the share of draws with any is the error rate, .05 at most, within 2 of its own SE.
    assert np.mean([len(m.table) > 0 for m in found]) <= 0.12
    assert np.mean([m.p_any < 0.05 for m in found]) <= 0.12


def test_shared_latents_are_found_among_modules():
    rng = np.random.default_rng(1)
    share, wrong = [], []
    for _ in range(6):
        world = World(rng, True, 300, n_shared=150)
        table = match_latents(world.model("a"), world.model("b")).table
        right = (table["feature_a"] == table["feature_b"]) & (table["feature_a"] < 150)
        share.append(right.sum() / 150)
        wrong.append((~right).sum() / max(len(table), 1))
    assert np.mean(share) > 0.9
    assert np.mean(wrong) < 0.05
