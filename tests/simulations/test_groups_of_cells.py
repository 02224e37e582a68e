"""Groups of cells that are alike: no edge is specific to one, and the edges of all are heterogeneous at the level."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scircuit.analysis.group_stability import group_stability
from scircuit.analysis.tissue import tissue

pytestmark = pytest.mark.slow
SOURCES, TARGETS, GROUPS, CELLS = 4, 150, 5, 20
RETENTION = 0.05


def traced(rng, effect):
    """Responses `[source, target, group, cell]` of one distribution, as a trace keeps them: `groups`, `tests`."""
    x = rng.standard_normal((SOURCES, TARGETS, GROUPS, CELLS)) + effect
    p = stats.ttest_1samp(x, 0, axis=-1).pvalue
    overall = stats.ttest_1samp(x.reshape(SOURCES, TARGETS, -1), 0, axis=-1).pvalue
    kept = (p <= RETENTION).any(axis=-1) | (overall <= RETENTION)
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


@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_nothing_is_specific_where_groups_are_alike(effect):
    rng = np.random.default_rng(0)
    any_specific = [len(tissue(*traced(rng, effect), "type").table) > 0 for _ in range(120)]
    assert np.mean(any_specific) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)


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
