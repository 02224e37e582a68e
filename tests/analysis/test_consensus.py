from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import circuit_of, planted_pairs, planted_table, random_targets, two

from scircuit.analysis.conditions import LabelledEdges, label_vocabulary
from scircuit.analysis.consensus import consensus
from scircuit.circuits.artefacts import Artefacts
from scircuit.errors import ScircuitError


def test_random_targets_are_not_conserved_but_the_published_null_says_so():
    result = consensus(two(random_targets(0), random_targets(1)), draws=300)
    fold = result["fold"]
    assert fold.low < 1.0 < fold.high
    assert fold.estimate == pytest.approx(1.0, abs=0.06)
    assert fold.p_value > 0.01
    assert result["edge_fold"].low < 1.0 < result["edge_fold"].high
    assert result["self_fold"].estimate == pytest.approx(1.0, abs=0.3)
    assert result["paper_fold"].estimate > 5
    assert result["paper_fold"].p_value == 0.0


def test_p_values_of_random_targets_are_uniform():
    p = [consensus(two(random_targets(2 * s, n_layers=4, degree=8), random_targets(2 * s + 1, n_layers=4, degree=8)),
                   draws=49, paper_draws=0)["fold"].p_value for s in range(12)]  # fmt: skip
    assert 0.25 < np.mean(p) < 0.75
    assert np.mean(np.array(p) <= 0.1) < 0.3


def test_planted_pairs_are_conserved():
    pairs = planted_table(0)
    result = consensus(two(planted_pairs(0, pairs), planted_pairs(10, pairs)), draws=200)
    assert result["edge_fold"].low > 1.2
    assert result["edge_fold"].p_value == pytest.approx(1 / 201)
    table = result.table
    planted = set(zip(pairs["source"], pairs["target"], strict=True))
    hit = np.array([row in planted for row in zip(table["source_label"], table["target_label"], strict=True)])
    assert hit[:20].mean() > 0.6
    assert hit[:20].mean() > 2 * hit[len(hit) // 2 :].mean()


def test_observed_pairs_equal_sets():
    a, b = random_targets(3), random_targets(4)

    def pairs(circuit):
        label = circuit.nodes.set_index(["layer", "feature"])["label"]
        ends = [
            label.loc[pd.MultiIndex.from_frame(circuit.edges[[f"{end}_layer", f"{end}_feature"]])].to_numpy()
            for end in ("source", "target")
        ]
        return {p for p in zip(*ends, strict=True) if "unlabelled" not in p}

    both = pairs(a) & pairs(b)
    result = consensus(two(a, b), draws=10, paper_draws=10)
    assert result["n_conserved"].estimate == sum(s != t for s, t in both)
    assert result["n_self_conserved"].estimate == sum(s == t for s, t in both)
    assert result["paper_n_conserved"].estimate == len(both)
    assert set(zip(result.table["source_label"], result.table["target_label"], strict=True)) == both


@given(seed=st.integers(0, 1000))
def test_the_null_keeps_sources_degrees_and_target_frequencies(seed):
    circuit = random_targets(seed, n_layers=4, width=120, n_sources=6, degree=6)
    labels = label_vocabulary([circuit])
    edges = LabelledEdges.of(circuit, labels)
    drawn = edges.permuted_targets(np.random.default_rng(seed))
    layers = circuit.nodes["layer"].to_numpy()[edges.ends]
    before = sorted(map(tuple, np.column_stack([layers, edges.target])))
    assert before == sorted(map(tuple, np.column_stack([layers, drawn])))
    assert not np.array_equal(drawn, edges.target)


def test_the_null_hardly_gives_a_latent_a_target_twice():
    """Each target label of these circuits is one latent, so repeated edges show as repeated label pairs."""
    circuit = random_targets(0, n_layers=3, width=120, n_sources=20, degree=20)
    names = [f"latent {i:04d}" for i in range(len(circuit.nodes))]
    circuit = replace(circuit, nodes=circuit.nodes.assign(label=names))
    edges = LabelledEdges.of(circuit, label_vocabulary([circuit]))
    for seed in range(10):
        drawn = np.column_stack([edges.source, edges.permuted_targets(np.random.default_rng(seed))])
        assert len(np.unique(drawn, axis=0)) > 0.98 * len(edges.source), "without repair about 0.92"


def test_the_fold_of_random_targets_is_unbiased():
    folds = [
        consensus(two(random_targets(1000 + 2 * s), random_targets(1001 + 2 * s)), draws=20, paper_draws=0)[
            "fold"
        ].estimate
        for s in range(10)
    ]
    assert np.mean(folds) == pytest.approx(1.0, abs=0.018)


def test_more_models_and_conditions():
    pairs = planted_table(1)
    conditions = [
        Artefacts.in_memory(planted_pairs(0, pairs), name="a1", model="A"),
        Artefacts.in_memory(random_targets(5), name="a2", model="A"),
        Artefacts.in_memory(planted_pairs(20, pairs), name="b", model="B"),
        Artefacts.in_memory(planted_pairs(40, pairs), name="c", model="C"),
    ]
    three = consensus(conditions, draws=100, min_models=3)
    assert (three.table["n_models"] == 3).all()
    assert three["edge_fold"].low > 1
    any_two = consensus(conditions, draws=100)
    assert len(any_two.table) > len(three.table)
    assert "paper_fold" not in set(three.measures["measure"])
    assert any_two.table["n_conditions"].max() == 4
    with pytest.raises(ScircuitError, match="choose 2 to 3"):
        consensus(conditions, min_models=1)


def test_the_same_seed_gives_the_same_numbers():
    conditions = two(random_targets(0), random_targets(1))
    first, again = (consensus(conditions, draws=50, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first.measures, again.measures)
    pd.testing.assert_frame_equal(first.table, again.table)


def test_conditions_that_cannot_be_compared():
    a, b = random_targets(0), random_targets(1)
    with pytest.raises(ScircuitError, match="2 models are needed and 1 given"):
        consensus([Artefacts.in_memory(a, name="a", model="A"), Artefacts.in_memory(b, name="b", model="A")])
    with pytest.raises(ScircuitError, match="two conditions are called 'a'"):
        consensus([Artefacts.in_memory(a, name="a", model="A"), Artefacts.in_memory(b, name="a", model="B")])
    other = replace(b, provenance=b.provenance | {"thresholds": {"min_abs_d": 1.0}})
    with pytest.raises(ScircuitError, match="build both from their traces with one rule"):
        consensus(two(a, other))
    fewer = replace(b, provenance=b.provenance | {"n_cells": 50})
    with pytest.raises(ScircuitError, match=r"50 cells and a in 100; .*subsample the larger from its stored moments"):
        consensus(two(a, fewer))
    with pytest.raises(ScircuitError, match="no edge is reproducible"):
        consensus(two(a, circuit_of(b.edges.iloc[:0], b.nodes)))
    unlabelled = replace(b, nodes=b.nodes.assign(label="unlabelled"))
    with pytest.raises(ScircuitError, match="label at both ends"):
        consensus(two(a, unlabelled))
