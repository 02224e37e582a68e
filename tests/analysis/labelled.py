"""Circuits with labelled latents and targets drawn at random or planted, for comparisons between models."""

from functools import lru_cache

import numpy as np
import pandas as pd

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit

LABELS = np.array([f"process {i:03d}" for i in range(300)])


def latents(rng: np.random.Generator, n_layers: int, width: int, labelled: float = 0.5) -> pd.DataFrame:
    """Nodes whose label frequencies fall off as 1 / rank."""
    weight = 1 / np.arange(1, len(LABELS) + 1)
    label = rng.choice(LABELS, n_layers * width, p=weight / weight.sum()).astype(object)
    label[rng.random(len(label)) > labelled] = "unlabelled"
    layer, feature = np.divmod(np.arange(n_layers * width), width)
    return pd.DataFrame({"layer": layer, "feature": feature, "label": label})


def circuit_of(edges: pd.DataFrame, nodes: pd.DataFrame, n_cells: int = 100, **provenance: object) -> Circuit:
    """A circuit with what the comparisons read."""
    tests = edges[["source_layer", "source_feature", "target_layer"]].drop_duplicates()
    tests = tests.assign(kind="latent", draw=0, n_cells=n_cells)
    empty = edges.iloc[:0]
    record = {
        "thresholds": {"min_abs_d": 0.5},
        "n_cells": n_cells,
        "model": {"n_layers": int(nodes["layer"].max()) + 1},
    }
    return Circuit(edges, nodes, tests, empty, pd.DataFrame(), record | provenance)


@lru_cache(maxsize=16)
def random_targets(
    seed: int, n_layers: int = 6, width: int = 400, n_sources: int = 30, degree: int = 25, rich: int = 40
) -> Circuit:
    """Sources carry the commonest labels, as selection by annotation makes them; every target is drawn at random."""
    rng = np.random.default_rng(seed)
    nodes = latents(rng, n_layers, width)
    common = nodes["label"].isin(LABELS[:rich]).to_numpy()
    rows = []
    for layer in (0, 2):
        features = nodes.loc[common & (nodes["layer"] == layer), "feature"].to_numpy()
        for feature in rng.choice(features, n_sources, replace=False):
            for target_layer in range(layer + 1, n_layers):
                targets = rng.choice(width, degree, replace=False)
                rows += [(target, layer, feature, target_layer) for target in targets]
    columns = ["target_feature", "source_layer", "source_feature", "target_layer"]
    edges = pd.DataFrame(np.array(rows), columns=columns)
    return circuit_of(edges.assign(cohens_d=rng.normal(0, 1.5, len(edges))), nodes)


def planted_table(seed: int) -> pd.DataFrame:
    """Four target labels, neither common nor rare, for each of the labels that sources carry."""
    rng = np.random.default_rng(seed)
    source = np.repeat(LABELS[:40], 4)
    return pd.DataFrame({"source": source, "target": rng.choice(LABELS[15:100], len(source))})


def planted_pairs(seed: int, pairs: pd.DataFrame, share: float = 0.4) -> Circuit:
    """Like `random_targets`, but a share of the edges goes to latents of a label that the pair table names."""
    base = random_targets(seed, degree=12)
    rng = np.random.default_rng(seed + 1)
    label = base.nodes.set_index(["layer", "feature"])["label"]
    wanted = pairs.groupby("source")["target"].agg(list)
    source = label.loc[pd.MultiIndex.from_frame(base.edges[["source_layer", "source_feature"]])].to_numpy()
    target = base.edges["target_feature"].to_numpy().copy()
    layers = base.edges["target_layer"].to_numpy()
    of_layer = {layer: label.loc[layer].to_numpy() for layer in np.unique(layers)}
    for row in np.flatnonzero(rng.random(len(target)) < share):
        choices = np.flatnonzero(of_layer[layers[row]] == rng.choice(wanted[source[row]]))
        if len(choices):
            target[row] = rng.choice(choices)
    edges = base.edges.assign(target_feature=target)
    ends = ["source_layer", "source_feature", "target_layer", "target_feature"]
    return circuit_of(edges.drop_duplicates(ends), base.nodes)


def two(a: Circuit, b: Circuit) -> list[Artefacts]:
    return [Artefacts.in_memory(a, name="a", model="Geneformer"), Artefacts.in_memory(b, name="b", model="scGPT")]
