"""Circuits whose targets are drawn at random, as an edge table would hold them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS

LABELS = np.array([f"process {i:03d}" for i in range(100)])


def random_circuit(
    rng: np.random.Generator,
    n_layers: int = 4,
    n_latents: int = 120,
    n_sources: int = 30,
    chance: float = 0.08,
    target_sd: float = 0.0,
    source_sd: float = 0.0,
    decay: float = 0.0,
    tested: float = 1.0,
    terms: np.ndarray | None = None,
) -> Circuit:
    """Every test an edge with its chance, whatever the latents stand for.

    Parameters
    ----------
    chance
        Of a test at distance 1 between an average source and an average target.
    target_sd, source_sd
        SD of the log of what each target and each source multiplies the chance by.
    decay
        Of the log chance per layer of distance.
    tested
        Share of the targets that respond to a source; 1 for all.
    terms
        Number of gene sets of each latent of each layer, int `[layer, latent]`.
    """
    popular = np.exp(target_sd * rng.standard_normal((n_layers, n_latents)))
    popular /= popular.mean(axis=1, keepdims=True)
    edges, tests, controls = [], [], []
    for layer in range(n_layers - 1):
        for source in rng.choice(n_latents, n_sources, replace=False):
            strong = np.exp(source_sd * rng.standard_normal() - source_sd**2 / 2)
            for target in range(layer + 1, n_layers):
                p = chance * strong * popular[target] * np.exp(-decay * (target - layer - 1))
                ends = {"source_layer": layer, "source_feature": source, "target_layer": target}
                for kind, into in (("latent", edges), ("random", controls)):
                    responds = rng.random(n_latents) < tested
                    hit = np.flatnonzero(responds & (rng.random(n_latents) < np.minimum(p, 0.95)))
                    into += [(layer, source, target, feature) for feature in hit]
                    tests.append({**ends, "kind": kind, "n_cells": 60, "n_tests": responds.sum()})
    layer, feature = np.divmod(np.arange(n_layers * n_latents), n_latents)
    frequency = np.exp(rng.normal(-4, 1, len(layer)))
    nodes = pd.DataFrame({
        "layer": layer, "feature": feature, "label": "", "frequency": frequency, "mean_activation": 1.0,
        "n_firings": 100, "n_terms": 0 if terms is None else terms.ravel(),
    })  # fmt: skip

    def sized(rows: list[tuple[int, int, int, int]]) -> pd.DataFrame:
        table = pd.DataFrame(np.array(rows), columns=ENDS)
        delta = rng.choice([-1.0, 1.0], len(table)) * rng.gamma(2, 1, len(table))
        return table.assign(mean_delta=delta, cohens_d=delta)

    facts = {"model": {"n_layers": n_layers}, "n_cells": 60, "thresholds": {}}
    return Circuit(sized(edges), nodes, pd.DataFrame(tests), sized(controls), pd.DataFrame(), facts)


def labelled(rng: np.random.Generator, name: str) -> Artefacts:
    """A circuit of random edges whose latents carry labels, some of them often."""
    circuit = random_circuit(rng, n_layers=4, n_latents=150, n_sources=20)
    weight = 1 / np.arange(1, len(LABELS) + 1)
    label = rng.choice(LABELS, len(circuit.nodes), p=weight / weight.sum()).astype(object)
    label[rng.random(len(label)) > 0.6] = "unlabelled"
    return Artefacts.in_memory(replace(circuit, nodes=circuit.nodes.assign(label=label)), name=name, model=name)


def uniform(p: Sequence[float] | np.ndarray, level: float = 0.05, errors: float = 2.5) -> bool:
    """Whether no more p-values lie below the level than it says, within `errors` of the error of so many draws."""
    share = np.mean(np.array(p) <= level)
    return bool(share <= level + errors * np.sqrt(level * (1 - level) / len(p)))
