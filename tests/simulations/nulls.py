"""Every analysis where there is nothing to find: what the slow tests judge and the page of calibration shows.

A simulation makes its data with nothing in them and gives the p of each draw; where a question gives an interval and no
p, 1 where the interval holds the truth and 0 where it does not.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from null import Null, held
from nulls_beyond import NULLS as BEYOND
from scipy import stats

from circuits import LABELS, labelled, random_circuit
from models import two_models
from scircuit.analysis.attenuation import attenuation
from scircuit.analysis.coactivation import coactivation
from scircuit.analysis.coexpression import coexpression
from scircuit.analysis.coherence import coherence
from scircuit.analysis.consensus import consensus
from scircuit.analysis.feature_matching import match_latents
from scircuit.analysis.group_stability import group_stability
from scircuit.analysis.hierarchy import hierarchy
from scircuit.analysis.hubs import hubs
from scircuit.analysis.novelty import novelty
from scircuit.analysis.replication import replication
from scircuit.analysis.result import Measure
from scircuit.analysis.seed_stability import seed_stability
from scircuit.analysis.selection import selection
from scircuit.analysis.sign_balance import sign_balance
from scircuit.analysis.tissue import tissue
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, SOURCE, TARGET

SOURCES, TARGETS, GROUPS, CELLS = 4, 150, 5, 20


def popular_targets(rng: np.random.Generator, seed: int, target_sd: float) -> Measure:
    """AUC of edges by a PMI that is higher for some targets, whatever the source: popular ones have many edges."""
    circuit = random_circuit(rng, n_layers=3, n_latents=100, n_sources=15, target_sd=target_sd)
    of_target = rng.standard_normal((3, 100))
    tested = circuit.tests.loc[circuit.tests["kind"] == "latent", [*SOURCE, "target_layer"]]
    pairs = tested.merge(pd.DataFrame({"target_feature": range(100)}), how="cross")
    level = of_target[pairs["target_layer"], pairs["target_feature"]]
    return coactivation(circuit, pairs.assign(pmi=level + rng.standard_normal(len(pairs))), seed=seed)["auc"]


def exposed(rng: np.random.Generator, seed: int, number: str) -> Measure:
    """Inequality of degrees where only exposure differs: early sources reach more layers, late targets are reached."""
    return hubs(random_circuit(rng, n_latents=60, n_sources=15, tested=0.7), draws=100, seed=seed)[number]


def decaying(rng: np.random.Generator, seed: int, chance: float, decay: float) -> Measure:
    """Decay with depth where edges are so rare that most counts are 0."""
    circuit = random_circuit(rng, n_layers=6, n_latents=80, n_sources=12, chance=chance, decay=decay)
    return attenuation(circuit, draws=200, seed=seed)["decay_rate"]


def traced(rng: np.random.Generator, effect: float | np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Responses `[source, target, group, cell]` of one distribution, as a trace keeps them: `groups`, `tests`."""
    x = rng.standard_normal((SOURCES, TARGETS, GROUPS, CELLS)) + effect
    p = stats.ttest_1samp(x, 0, axis=-1).pvalue
    overall = stats.ttest_1samp(x.reshape(SOURCES, TARGETS, -1), 0, axis=-1).pvalue
    kept = (p <= 0.05).any(axis=-1) | (overall <= 0.05)
    source, target, group = np.nonzero(np.broadcast_to(kept[..., None], p.shape))
    values = x[source, target, group]
    mean, sd = values.mean(axis=1), values.std(axis=1, ddof=1)
    groups = pd.DataFrame({
        "group_name": "type", "group": np.array(list("abcde"))[group], "source_layer": 0, "source_feature": source,
        "target_layer": 1, "target_feature": target, "n_cells": CELLS, "n_nonzero": CELLS,
        "n_pos": (values > 0).sum(axis=1), "n_neg": (values < 0).sum(axis=1), "mean_delta": mean, "sd_delta": sd,
        "cohens_d": mean / sd, "p_value": p[source, target, group],
    })  # fmt: skip
    tests = pd.DataFrame({
        "source_layer": 0, "source_feature": np.arange(SOURCES), "target_layer": 1, "kind": "latent",
        "n_cells": GROUPS * CELLS, "n_tests": TARGETS,
    })  # fmt: skip
    return groups, tests


def with_terms(rng: np.random.Generator, circuit: Circuit) -> Circuit:
    """Gene sets for half of the latents, few for some and many for others, of no relation to the edges."""
    nodes = circuit.nodes
    n = np.where(rng.random(len(nodes)) < 0.5, rng.geometric(0.3, len(nodes)), 0)
    row = np.repeat(np.arange(len(nodes)), n)
    terms = nodes.loc[row, ["layer", "feature"]].reset_index(drop=True)
    number = rng.integers(0, 60, len(row))
    terms = terms.assign(term=[f"set {i}" for i in number], information_content=1 + number / 10).drop_duplicates()
    return replace(circuit, nodes=nodes.assign(n_terms=n), terms=terms)


def not_there_again(rng: np.random.Generator, n: int = 20) -> pd.DataFrame:
    """Edges without any effect that passed a threshold in some cells, measured again in others."""
    first, second = rng.standard_normal((2, 4000, n))
    d = [x.mean(axis=1) / x.std(axis=1, ddof=1) for x in (first, second)]
    code = np.arange(len(first))
    table = pd.DataFrame({
        "source_layer": 0, "source_feature": code // 40, "target_layer": 1, "target_feature": code, "n_cells": n,
        "n_nonzero": n, "cohens_d": d[1], "p_value": stats.ttest_1samp(second, 0, axis=1).pvalue, "discovery_d": d[0],
    })  # fmt: skip
    return table[table["discovery_d"].abs() > 0.5].reset_index(drop=True)


def two_seeds(rng: np.random.Generator, seed: int) -> Measure:
    """Jaccard of circuits of the same latents whose edges have nothing to do with each other."""
    of = {"n_layers": 3, "n_latents": 60, "n_sources": 30, "target_sd": 0.5, "source_sd": 0.7}
    first, second = random_circuit(rng, **of), random_circuit(rng, **of)
    same = first.nodes[["layer", "feature"]].set_axis(["layer", "feature_first"], axis=1)
    matches = same.assign(feature_second=same["feature_first"], similarity=1.0)
    return seed_stability(first, second, matches, draws=40, seed=seed)["jaccard"]


def _genes(rng: np.random.Generator) -> dict[str, list[str]]:
    return {label: [f"G{g}" for g in rng.choice(600, 15, replace=False)] for label in LABELS}


def _sign(rng: np.random.Generator, seed: int) -> float:
    circuit = random_circuit(rng, n_layers=3, n_latents=80, n_sources=20)
    edges, controls = (t.assign(weight_effect=rng.standard_normal(len(t))) for t in (circuit.edges, circuit.controls))
    answer = sign_balance(replace(circuit, edges=edges, controls=controls), draws=200, seed=seed)
    return answer["excess_over_random"].p_value


def _annotated(rng: np.random.Generator, seed: int) -> float:
    terms = (rng.random((3, 100)) < 0.5).astype(int)
    circuit = random_circuit(rng, n_layers=3, n_latents=100, n_sources=40, chance=0.1, terms=terms)
    return held(selection(circuit, draws=200, seed=seed)["edges_per_1000_tests_difference"], 0.0)


def _coherent(rng: np.random.Generator, seed: int) -> float:
    circuit = with_terms(rng, random_circuit(rng, n_layers=3, n_latents=150, n_sources=15, target_sd=0.7))
    return coherence(circuit, draws=99, seed=seed)["fold"].p_value


def _conserved(rng: np.random.Generator, seed: int, number: str) -> float:
    return consensus([labelled(rng, "a"), labelled(rng, "b")], draws=99, paper_draws=0, seed=seed)[number].p_value


def _novel(rng: np.random.Generator, seed: int) -> float:
    return novelty(labelled(rng, "a").circuit(), _genes(rng), draws=99, seed=seed)["novel_fold"].p_value


def _circles(rng: np.random.Generator, seed: int) -> float:
    return hierarchy(labelled(rng, "a").circuit(), draws=99, seed=seed)["n_reciprocal"].p_value


def _specific_to_a_group(rng: np.random.Generator, _: int, effect: float) -> float:
    return float(tissue(*traced(rng, effect), "type").table.empty)


def _heterogeneous(rng: np.random.Generator, _: int, effect: float) -> float:
    return float(not group_stability(*traced(rng, effect))["type_heterogeneous_share"].estimate > 0)


def _expressed(rng: np.random.Generator, seed: int, n_sources: int, shared: float) -> float:
    """Edges of one source and of one target are alike in size and in correlation, each by `shared` (SD of the log)."""
    circuit = random_circuit(rng, n_layers=3, n_latents=80, n_sources=n_sources)
    edges = circuit.edges
    together = rng.uniform(-1, 1, (len(edges), 2)) @ np.array([[1.0, 0.6], [0.0, 0.4]])
    of_latent = np.exp(shared * rng.standard_normal((2, 2, 3, 80)))
    ends = [tuple(edges[names].to_numpy().T) for names in (SOURCE, TARGET)]
    d_factor, r_factor = (of_latent[i, 0][ends[0]] * of_latent[i, 1][ends[1]] for i in range(2))
    correlations = edges[ENDS].assign(gene_r=together[:, 0] * r_factor, latent_r=together[:, 1] * r_factor)
    circuit = replace(circuit, edges=edges.assign(cohens_d=edges["cohens_d"] * d_factor))
    return held(coexpression(circuit, correlations, draws=20, seed=seed)["partial_gene_r"], 0.0)


def _matched(rng: np.random.Generator, _: int, n_modules: int) -> float:
    return match_latents(*two_models(rng, n_modules)).p_value


def _again(rng: np.random.Generator, seed: int, number: str) -> float:
    return replication(not_there_again(rng), draws=50, null_draws=99, seed=seed)[number].p_value


NULLS = (
    Null("sign_balance", "excess_over_random", "sources and decoys with edges of one kind", 100, _sign),
    Null("coherence", "fold", "targets drawn by popularity, gene sets at random", 100, _coherent),
    *(
        Null("attenuation", "decay_rate (interval)", f"edges decay by {decay} a layer, from {chance} of the tests", 60,
             lambda rng, i, c=chance, d=decay: held(decaying(rng, i, c, d), d))
        for chance, decay in ((0.1, 0.3), (0.02, 0.8))
    ),
    *(
        Null("hubs", number, "targets drawn at random among those tested", 100,
             lambda rng, i, n=number: exposed(rng, i, n).p_value)
        for number in ("gini_out", "gini_in")
    ),
    *(
        Null("coactivation", "auc", f"targets fire with every source alike, log popularity of SD {sd}", 100,
             lambda rng, i, sd=sd: popular_targets(rng, i, sd).p_value)
        for sd in (0.0, 1.2)
    ),
    *(
        Null("replication", number, "edges without effect, chosen by size in other cells", 100,
             partial(_again, number=number))
        for number in ("r", "sign_agreement")
    ),
    *(
        Null("group_stability", "any heterogeneous edge", f"groups of cells alike, effect {effect} SD", 100,
             partial(_heterogeneous, effect=effect))
        for effect in (0.5, 0.8)
    ),
    Null("selection", "difference in edges (interval)", "annotated sources no different", 100, _annotated),
    *(
        Null("coexpression", "partial_gene_r (interval)",
             f"d of no relation to correlations; {n} sources a layer, edges of one latent alike by {shared}", 200,
             partial(_expressed, n_sources=n, shared=shared))
        for n, shared in ((30, 0.0), (30, 0.5), (6, 0.5))
    ),
    Null("seed_stability", "jaccard", "edges of two seeds unrelated", 100, lambda rng, i: two_seeds(rng, i).p_value),
    Null("hierarchy", "n_reciprocal", "targets drawn at random, labels of any frequency", 100, _circles),
    Null("novelty", "novel_fold", "targets and gene sets drawn at random", 100, _novel),
    *(
        Null("tissue", "any specific edge", f"groups of cells alike, effect {effect} SD", 200,
             partial(_specific_to_a_group, effect=effect))
        for effect in (0.0, 0.5)
    ),
    *(
        Null("consensus", number, "targets of both models drawn at random", 100, partial(_conserved, number=number))
        for number in ("fold", "edge_fold")
    ),
    *(
        Null("feature_consensus", "any matched latent", f"no latent shared; genes abundant in both, {n} shared modules",
             60, partial(_matched, n_modules=n))
        for n in (0, 6)
    ),
    *BEYOND,
)  # fmt: skip
