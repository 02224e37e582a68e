"""Groups of cells: edges of all are heterogeneous at the level, and what is of one group is found."""

import numpy as np
import pytest
from nulls import GROUPS, SOURCES, TARGETS, traced

from scircuit.analysis.group_stability import group_stability
from scircuit.analysis.tissue import tissue

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("effect", [0.5, 0.8])
def test_edges_are_heterogeneous_in_so_few_draws_as_the_level_allows(effect):
    rng = np.random.default_rng(1)
    shares = [group_stability(*traced(rng, effect))["type_heterogeneous_share"] for _ in range(100)]
    # No edge differs, so any call is false: the share of draws with one is the false-discovery rate.
    assert np.mean([share.estimate > 0 for share in shares]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)
    assert np.mean([share.n for share in shares]) > 100


def test_an_edge_of_one_group_is_found():
    rng = np.random.default_rng(2)
    effect = np.zeros((SOURCES, TARGETS, GROUPS, 1))
    effect[:, :10, 0] = 2.0
    table = tissue(*traced(rng, effect), "type").table
    found = table[table["term"] == "a"]
    assert len(found[found["target_feature"] < 10]) >= 38
    assert (table["target_feature"] >= 10).mean() <= 0.1
