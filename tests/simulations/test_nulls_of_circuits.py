"""Circuits whose targets were drawn at random: p is uniform, intervals cover, planted numbers come out."""

from dataclasses import replace

import numpy as np
import pytest
from nulls import decaying, popular_targets

from circuits import random_circuit, uniform
from scircuit.analysis.selection import selection

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target_sd", [0.0, 1.2])
def test_targets_that_fire_with_everything_are_no_co_activation(target_sd):
    """Popular targets have many edges, and what fires with one source fires with all: that is one target's noise."""
    rng = np.random.default_rng(0)
    answers = [popular_targets(rng, i, target_sd) for i in range(100)]
    assert uniform([answer.p_value for answer in answers])
    assert np.mean([answer.low <= 0.5 <= answer.high for answer in answers]) > 0.88


@pytest.mark.parametrize(("chance", "decay"), [(0.1, 0.3), (0.02, 0.8)])
def test_the_decay_is_covered_where_most_counts_are_zero(chance, decay):
    rng = np.random.default_rng(1)
    answers = [decaying(rng, i, chance, decay) for i in range(60)]
    assert np.median([answer.estimate for answer in answers]) == pytest.approx(decay, abs=0.05)
    assert np.mean([answer.low <= decay <= answer.high for answer in answers]) > 0.86
    assert np.median([answer.null for answer in answers]) == pytest.approx(decay, abs=0.05)


def test_annotated_sources_are_compared_with_the_rest_not_with_themselves():
    """The others have half of the edges: the difference is that half, of what the annotated have."""
    rng = np.random.default_rng(2)
    ratios, covered = [], []
    for i in range(30):
        terms = (rng.random((3, 100)) < 0.5).astype(int)
        circuit = random_circuit(rng, n_layers=3, n_latents=100, n_sources=40, chance=0.1, terms=terms)
        of_source = terms[circuit.edges["source_layer"], circuit.edges["source_feature"]]
        kept = (of_source > 0) | (rng.random(len(of_source)) < 0.5)
        result = selection(replace(circuit, edges=circuit.edges[kept].reset_index(drop=True)), draws=200, seed=i)
        names = ("annotated", "random", "difference")
        own, other, difference = (result[f"edges_per_1000_tests_{name}"] for name in names)
        ratios.append(other.estimate / own.estimate)
        covered.append(difference.low <= own.estimate / 2 <= difference.high)
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.03)
    assert np.mean(covered) > 0.8
