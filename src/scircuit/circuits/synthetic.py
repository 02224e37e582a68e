"""A planted circuit with all its tables, from per-cell responses: for tests, figures, documentation."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.stats.signflip import screen_p


class Planted(NamedTuple):
    """A synthetic circuit, what was planted in it, and the artefacts it was built from.

    `truth` has one row per planted edge (`source_layer, source_feature, target_layer, target_feature, sign`);
    `effects`, `tests`, `features`, `terms` are the artefacts of docs/architecture.md.
    """

    circuit: Circuit
    truth: pd.DataFrame
    effects: pd.DataFrame
    tests: pd.DataFrame
    features: pd.DataFrame
    terms: pd.DataFrame


def moments(deltas: np.ndarray) -> pd.DataFrame:
    """The statistics a trace keeps of per-cell responses `[target, cell]`, one row per target."""
    n_cells = deltas.shape[1]
    nonzero, positive = (deltas != 0).sum(axis=1), (deltas > 0).sum(axis=1)
    mean, sd = deltas.mean(axis=1), deltas.std(axis=1, ddof=1)
    larger = np.maximum(positive, nonzero - positive)
    return pd.DataFrame(
        {
            "n_cells": n_cells,
            "n_nonzero": nonzero,
            "n_pos": positive,
            "n_neg": nonzero - positive,
            "mean_delta": mean,
            "sd_delta": sd,
            "cohens_d": np.divide(mean, sd, out=np.zeros_like(mean), where=sd > 0),
            "consistency": np.divide(larger, nonzero, out=np.zeros_like(mean), where=nonzero > 0),
            "p_value": screen_p(nonzero, deltas.sum(axis=1), (deltas**2).sum(axis=1)),
        }
    )


def planted_circuit(
    n_layers: int = 4,
    n_latents: int = 48,
    n_sources: int = 12,
    n_cells: int = 60,
    edge_share: float = 0.15,
    supporting: float = 0.7,
    zero_share: float = 0.2,
    effect: float = 2.0,
    decay: float = 0.85,
    term_affinity: float = 0.5,
    n_directions: int = 2,
    direction_share: float = 0.1,
    rule: EdgeRule = DEFAULT,
    seed: int = 0,
) -> Planted:
    """Simulate a trace over planted edges and build its circuit.

    Every layer but the last holds `n_sources` sources, which all fire in all cells. Each drives `edge_share` of the
    latents of the next layer, times `decay` per further layer; `supporting` of the targets fall. A response is `effect`
    in units of its noise, and in `zero_share` of the cells there is none. Of the planted edges, `term_affinity` have
    ends with a common gene set. Each source has `n_directions` random directions, which move `direction_share` times as
    many targets as a latent, as often up as down.
    """
    rng = np.random.default_rng(seed)
    features = _features(n_layers, n_latents, rng)
    effects, tests, truth = [], [], []
    for layer in range(n_layers - 1):
        for source in np.sort(rng.choice(n_latents, n_sources, replace=False)):
            for target_layer in range(layer + 1, n_layers):
                share = edge_share * decay ** (target_layer - layer - 1)
                sign = np.where(rng.random(n_latents) < supporting, -1, 1)
                sign = np.where(rng.random(n_latents) < share, sign, 0)
                ends = {"source_layer": layer, "source_feature": source, "target_layer": target_layer}
                moved = rng.random((n_directions, n_latents)) < share * direction_share
                aside = moved * rng.choice([-1, 1], moved.shape)
                drives = effect * np.concatenate([sign, aside.ravel()])
                table = moments(_responses(drives, n_cells, zero_share, rng)).assign(
                    **ends,
                    target_feature=np.tile(np.arange(n_latents), n_directions + 1),
                    kind=np.where(np.arange(len(drives)) < n_latents, "latent", "random"),
                    draw=np.maximum(np.arange(len(drives)) // n_latents - 1, 0),
                )
                kept = table["p_value"].to_numpy() <= 0.05
                effects.append(table.loc[kept])
                tests += _counts(table, kept, n_latents, ends | {"n_cells": n_cells})
                planted = np.flatnonzero(sign)
                truth.append(pd.DataFrame(ends | {"target_feature": planted, "sign": sign[planted]}, index=planted))
    truth_table = pd.concat(truth, ignore_index=True)
    effect_table = _with_clean_side(pd.concat(effects, ignore_index=True), features, rng)
    terms = _terms(features, truth_table, term_affinity, rng)
    features = _labelled(features, terms)
    provenance = {"model": {"name": "planted", "n_layers": n_layers}, "seed": seed, "retention": 0.05}
    test_table = pd.DataFrame(tests)
    circuit = build_circuit(effect_table, test_table, features, terms, rule, provenance)
    return Planted(circuit, truth_table, effect_table, test_table, features, terms)


def _counts(table: pd.DataFrame, kept: np.ndarray, n_latents: int, ends: dict[str, int]) -> list[dict[str, object]]:
    """The rows of the test table, one per block of `n_latents` targets."""
    responded = (table["n_nonzero"].to_numpy() > 0).reshape(-1, n_latents).sum(axis=1)
    retained = kept.reshape(-1, n_latents).sum(axis=1)
    return [
        {
            **ends,
            "kind": "random" if block else "latent",
            "draw": max(block - 1, 0),
            "n_targets": n_latents,
            "n_tests": n,
            "n_retained": k,
        }
        for block, (n, k) in enumerate(zip(responded, retained, strict=True))
    ]


def _responses(drives: np.ndarray, n_cells: int, zero_share: float, rng: np.random.Generator) -> np.ndarray:
    """Per-cell responses `[target, cell]` with unit noise, some cells silent."""
    values = drives[:, None] + rng.standard_normal((len(drives), n_cells))
    silent = rng.random(values.shape) < np.minimum(2 * zero_share * rng.random((len(drives), 1)), 0.95)
    return np.where(silent, 0.0, values)


def _features(n_layers: int, n_latents: int, rng: np.random.Generator) -> pd.DataFrame:
    layer, feature = np.divmod(np.arange(n_layers * n_latents), n_latents)
    frequency = np.exp(rng.normal(-4, 1, len(layer)))
    genes = np.array([f"GENE{i}" for i in range(400)])
    return pd.DataFrame(
        {
            "layer": layer,
            "feature": feature,
            "frequency": frequency,
            "mean_activation": np.exp(rng.normal(0, 0.5, len(layer))),
            "n_firings": (frequency * 1e5).astype(int),
            "n_cells": 100,
            "top_genes": [list(rng.choice(genes, 10, replace=False)) for _ in layer],
        }
    )


def _with_clean_side(effects: pd.DataFrame, features: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    activation = features.set_index(["layer", "feature"])["mean_activation"]
    ends = pd.MultiIndex.from_frame(effects[["target_layer", "target_feature"]])
    clean = activation.reindex(ends).to_numpy()
    return effects.assign(
        clean_mean=3 * clean,
        clean_sd=clean,
        weight_effect=-effects["mean_delta"] * rng.uniform(0.1, 0.6, len(effects)),
    )


def _terms(features: pd.DataFrame, truth: pd.DataFrame, affinity: float, rng: np.random.Generator) -> pd.DataFrame:
    """Up to four gene sets per latent, and one shared by both ends of some of the planted edges."""
    names = np.array([f"process {i:02d}" for i in range(30)])
    n = rng.integers(0, 5, len(features))
    own = features.loc[features.index.repeat(n), ["layer", "feature"]].assign(term=rng.choice(names, n.sum()))
    shared = truth.loc[rng.random(len(truth)) < affinity]
    term = names[(shared["source_layer"] * 7 + shared["source_feature"]) % len(names)]
    given = [
        pd.DataFrame({"layer": shared[f"{end}_layer"], "feature": shared[f"{end}_feature"], "term": term})
        for end in ("source", "target")
    ]
    table = pd.concat([own, *given]).drop_duplicates().sort_values(["layer", "feature", "term"])
    size = 20 + 10 * table["term"].str[-2:].astype(int)
    return table.assign(
        n_overlap=rng.integers(3, 10, len(table)),
        set_size=size,
        query_size=20,
        fold=rng.uniform(2, 8, len(table)),
        p_value=1e-6,
        q_value=1e-4,
        information_content=-np.log2(size / 6000),
    ).reset_index(drop=True)


def _labelled(features: pd.DataFrame, terms: pd.DataFrame) -> pd.DataFrame:
    grouped = terms.sort_values("information_content", ascending=False).groupby(["layer", "feature"])
    ends = pd.MultiIndex.from_frame(features[["layer", "feature"]])
    label = grouped["term"].first().reindex(ends).fillna("").to_numpy()
    n_terms = grouped.size().reindex(ends, fill_value=0).to_numpy()
    return features.assign(label=label, label_term_id=label, n_terms=n_terms)
