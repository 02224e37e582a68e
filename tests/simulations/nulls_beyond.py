"""The nulls of what is asked of more than the edges of a circuit: held latents, sets, sizes, diseases, screens."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from null import Null, held

from circuits import LABELS, labelled, random_circuit
from scircuit.analysis.disease import Associations, disease_centrality, disease_conservation
from scircuit.analysis.effect_comparison import compare_effect_sizes
from scircuit.analysis.effect_sizes import effect_sizes
from scircuit.analysis.interactions import interactions
from scircuit.analysis.mediation import mediation
from scircuit.circuits.artefacts import Artefacts
from scircuit.perturbation.predictions import GenePredictions
from scircuit.perturbation.skill import conclusion
from scircuit.perturbation.truth import Truth
from scircuit.perturbation.validation import validate


def _additive(rng: np.random.Generator, seed: int) -> float:
    """Pairs whose responses add up, but for noise of every reading."""
    rows = []
    for pair in range(6):
        parts = rng.normal(0.5, 1, (2, 80, 1)) + rng.standard_normal((2, 80, 20))
        for subset, delta in ((1, parts[0]), (2, parts[1]), (3, parts.sum(axis=0) + rng.standard_normal((80, 20)))):
            target, cell = np.indices(delta.shape).reshape(2, -1)
            rows.append(pd.DataFrame({
                "set_id": pair, "subset": subset, "target_layer": 1, "target_feature": target, "cell": cell,
                "delta": delta.ravel(),
            }))  # fmt: skip
    sets = pd.DataFrame({"set_id": np.repeat(range(6), 2), "member": [0, 1] * 6, "layer": 0, "feature": 0,
                         "n_cells": 20})  # fmt: skip
    table = interactions(pd.concat(rows, ignore_index=True), sets, draws=20, seed=seed).table
    return float((table["effect"] == "additive").all())


def held_latents(rng: np.random.Generator, n_sources: int = 8, n_edges: int = 6, top: int = 4) -> pd.DataFrame:
    """Latents held in 20 cells, none of which carries anything: what their holding changes is as often up as down.

    The edges of a source have the same mediators, and a mediator changes them alike; the random latents are drawn for
    every edge.
    """
    shape = (n_sources, n_edges, top, 20)
    alike = rng.standard_normal((n_sources, 1, top, 1))
    carried = {
        "mediator": alike + 0.5 * rng.standard_normal(shape[:3])[..., None] + rng.standard_normal(shape),
        "random": np.sqrt(1.25) * rng.standard_normal(shape[:3])[..., None] + rng.standard_normal(shape),
    }
    source, edge, mediator, cell = (index.ravel() for index in np.indices(shape))
    delta = rng.normal(-2, 0.5, (n_sources, n_edges, 1, 20)) + np.zeros(shape)
    rows = [
        pd.DataFrame({
            "source_layer": 0, "source_feature": source, "target_layer": 2,
            "target_feature": source * n_edges + edge, "mediator_layer": 1,
            "mediator_feature": mediator + (0 if kind == "mediator" else top), "kind": kind, "cell": cell,
            "delta": delta.ravel(), "delta_held": (delta - 0.2 * values).ravel(),
        })
        for kind, values in carried.items()
    ]  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def _carried(rng: np.random.Generator, seed: int) -> float:
    return mediation(held_latents(rng), draws=20, seed=seed)["share_carried"].p_value


def _any_mediator(rng: np.random.Generator, seed: int) -> float:
    """Latents that change nothing but by the noise of every cell."""
    effects = held_latents(rng, n_sources=3)
    effects["delta_held"] = effects["delta"] + 0.2 * rng.standard_normal(len(effects))
    table = mediation(effects, draws=20, seed=seed).table
    return float(not (table.loc[table["kind"] == "mediator", "q_value"] < 0.05).any())


def _size(rng: np.random.Generator, _: int, n_sources: int) -> float:
    """Sizes of one distribution in every source, some of which have many edges; its mean is known."""
    circuit = random_circuit(rng, n_layers=3, n_latents=80, n_sources=n_sources, source_sd=0.7)
    edges = circuit.edges.assign(clean_mean=1.0, clean_sd=1.0)
    circuit = replace(circuit, edges=edges, controls=circuit.controls.assign(clean_mean=1.0, clean_sd=1.0))
    return held(effect_sizes(circuit)["mean_abs_d"], 2.0)


def _as_large(rng: np.random.Generator, seed: int) -> float:
    circuits = [random_circuit(rng, n_layers=3, n_latents=80) for _ in range(2)]
    circuits = [replace(c, edges=c.edges.assign(n_cells=60)) for c in circuits]
    return held(compare_effect_sizes(*circuits, draws=300, seed=seed)["difference"], 0.0)


def _associations(condition: Artefacts, ill: np.ndarray) -> Associations:
    """Latents of the labels `ill`."""
    nodes = condition.circuit().nodes
    latents = nodes[["layer", "feature"]].assign(is_disease=nodes["label"].isin(ill))
    return Associations(pd.DataFrame(), latents, 1, 50, 1000)


def _ill(rng: np.random.Generator, _: int) -> float:
    conditions = [labelled(rng, "a"), labelled(rng, "b")]
    ill = LABELS[rng.random(len(LABELS)) < 0.5]
    associations = {condition.name: _associations(condition, ill) for condition in conditions}
    return held(disease_conservation(conditions, associations)["odds_ratio"], 1.0)


def _central(rng: np.random.Generator, _: int, number: str) -> float:
    """A fifth of the latents ill, whatever their edges; targets and sources are popular by an SD of .7 of the log."""
    circuit = random_circuit(rng, n_layers=4, n_latents=150, n_sources=30, target_sd=0.7, source_sd=0.7)
    latents = circuit.nodes[["layer", "feature"]].assign(is_disease=rng.random(len(circuit.nodes)) < 0.2)
    return disease_centrality(circuit, Associations(pd.DataFrame(), latents, 1, 50, 1000))[number].p_value


def _skill(rng: np.random.Generator, seed: int, n_genes: int) -> float:
    """Predictions that have nothing to do with a screen; 1 where no metric is called better."""
    measured, said = rng.standard_normal((2, n_genes, 120))
    names, genes = [f"K{i}" for i in range(n_genes)], pd.Index([f"G{i}" for i in range(120)])
    sign = np.where(np.abs(measured) > 1, np.sign(measured), 0).astype(np.int8)
    truth = Truth(pd.DataFrame({"label": names, "gene": names}), genes, sign, sign.astype(float), one_sided=False)
    predictions = GenePredictions(pd.DataFrame(said, index=names, columns=genes), "drawn")
    return float(not conclusion(validate(predictions, truth, seed=seed).comparison).startswith("Skill"))


NULLS = (
    Null("interactions", "any interaction", "responses of pairs add up", 60, _additive),
    Null("mediation", "share_carried", "mediators and random latents change responses alike, edges of a source share "
         "theirs", 100, _carried),
    Null("mediation", "any mediator", "held latents change nothing but by noise of every cell", 100, _any_mediator),
    *(
        Null("effect_sizes", "mean_abs_d (interval)", f"sizes of one distribution, {n} sources a layer", 200,
             partial(_size, n_sources=n))
        for n in (30, 6)
    ),
    Null("compare_effect_sizes", "difference (interval)", "edges of both models alike", 100, _as_large),
    Null("disease_conservation", "odds_ratio (interval)", "disease labels drawn at random", 100, _ill),
    *(
        Null("disease_centrality", number, "disease latents drawn at random", 200, partial(_central, number=number))
        for number in ("in_degree_ratio", "out_degree_ratio")
    ),
    *(
        Null("validate", "skill by any metric", f"predictions drawn at random, {n} knocked-down genes", draws,
             partial(_skill, n_genes=n))
        for n, draws in ((8, 100), (40, 30))
    ),
)  # fmt: skip
