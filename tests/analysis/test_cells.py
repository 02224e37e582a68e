"""Stability over cells, groups, dictionaries and thresholds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.oneway import anova_oneway

from scircuit.analysis.agreement import Agreement, CellEffects, agreement
from scircuit.analysis.group_stability import _welch_p, group_stability
from scircuit.analysis.seed_stability import seed_stability
from scircuit.analysis.stability import _cells_for_jaccard, _cells_for_r, _disjoint, fewest_cells, stability
from scircuit.analysis.thresholds import threshold_sweep
from scircuit.circuits.build import build_circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.synthetic import moments, planted_circuit
from scircuit.errors import ScircuitError

N_CELLS = 80


def simulate(effect, seed=0, n_sources=4, n_targets=50, driven=15):
    """Dense responses `[source, target, cell]`; the first targets of each source are driven."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n_sources, n_targets, N_CELLS))
    values[:, :driven] += effect
    values[rng.random(values.shape) < 0.2] = 0
    return values


def as_tables(values, fires=None):
    fires = np.ones((len(values), N_CELLS), bool) if fires is None else fires
    source, target, cell = np.nonzero(values * fires[:, None, :])
    effects = pd.DataFrame(
        {
            "source_layer": 0,
            "source_feature": source,
            "target_layer": 1,
            "target_feature": target,
            "cell": 100 + cell,
            "delta": values[source, target, cell],
        }
    )
    source, cell = np.nonzero(fires)
    return effects, pd.DataFrame({"source_layer": 0, "source_feature": source, "cell": 100 + cell})


def test_moments_of_any_cells_are_those_of_the_dense_array():
    values, rng = simulate(1.0), np.random.default_rng(1)
    fires = rng.random((4, N_CELLS)) < 0.7
    data = CellEffects(*as_tables(values, fires))
    chosen = rng.random(N_CELLS) < 0.5
    ours = data.moments(chosen[data.cells - 100].astype(int))
    for source in range(4):
        oracle = moments(values[source][:, chosen & fires[source]])
        rows = ours[(data.tests["source_feature"] == source).to_numpy()]
        for column in ("n_cells", "n_nonzero", "n_pos", "n_neg", "mean_delta", "cohens_d", "p_value"):
            np.testing.assert_allclose(rows[column], oracle[column], rtol=1e-9, atol=1e-12)


def test_strong_effects_replicate_and_noise_does_not():
    strong = stability(*as_tables(simulate(3.0)), n_draws=10)
    assert strong["split_half_jaccard"].estimate > 0.97
    assert strong["split_half_jaccard"].null < 0.3
    assert strong["replicated_share"].estimate == 1
    assert strong["split_half_sign"].estimate > 0.98
    rule = EdgeRule(min_abs_d=0, min_consistency=0, max_q=None, min_nonzero=0)
    noise = stability(*as_tables(simulate(0.0)), rule=rule, n_draws=10)
    assert abs(noise["split_half_r"].estimate) < 0.15
    assert 0.4 < noise["split_half_sign"].estimate < 0.6


def test_more_cells_agree_better_with_all():
    table = stability(*as_tables(simulate(0.9)), n_cells=(20, 40, 60, 500), n_draws=20).table
    subsets = table[table["comparison"] == "subset"]
    assert subsets["n_cells"].tolist() == [20, 40, 60]
    assert subsets["r"].is_monotonic_increasing
    assert subsets["jaccard"].iloc[-1] > subsets["jaccard"].iloc[0]


def test_sizes_at_which_no_edge_can_be_called_are_absent():
    """With 10 responding cells asked for, no edge in 5 cells is no instability; nor is 6 cells' least p of 2^-5."""
    table = stability(*as_tables(simulate(3.0)), n_cells=(5, 8, 20), n_draws=2).table
    assert table["n_cells"].min() == 20
    assert fewest_cells(EdgeRule()) == 10
    assert fewest_cells(EdgeRule(min_nonzero=0)) == 6
    assert fewest_cells(EdgeRule(min_nonzero=0, max_q=None)) == 2
    effects, cells = as_tables(simulate(3.0))
    few = np.sort(cells["cell"].unique())[:12]
    with pytest.raises(ScircuitError, match="no edge in fewer than 10 cells, and half of the 12 traced ones are 6"):
        stability(effects[effects["cell"].isin(few)], cells[cells["cell"].isin(few)], n_draws=2)


def test_tests_that_were_not_kept_count_in_the_correction():
    """The kept tests alone would call nearly everything: 12 of noise were kept out of 2,000 made."""
    values = np.random.default_rng(0).standard_normal((4, 500, N_CELLS))
    p = np.array([moments(source)["p_value"] for source in values])
    kept = values.copy()
    kept[p > 0.02] = 0
    effects, cells = as_tables(kept)
    tests = pd.DataFrame({"source_layer": 0, "source_feature": range(4), "kind": "latent", "n_tests": 500})
    rule = EdgeRule(min_abs_d=0, min_consistency=0)
    alone, whole = (stability(effects, cells, t, rule, n_draws=2) for t in (None, tests))
    assert alone["replicated_share"].n > 20
    assert whole["replicated_share"].n == 0


def test_cells_needed_by_hand():
    splits = pd.DataFrame({"n_cells": [10, 20, 40], "jaccard": [0.1, 0.4, 0.6]})
    assert _cells_for_jaccard(splits).estimate == pytest.approx(30)
    assert _cells_for_jaccard(splits, wanted=0.05).estimate == 10
    assert np.isnan(_cells_for_jaccard(splits, wanted=0.7).estimate)
    half = Agreement(0.5, 0.1, 0.6, 1.0, 5, 5, 5)
    # Reliability 0.6 at 40 cells: k = 40 * 0.4 / 0.6, and 0.9 needs 9 k.
    assert _cells_for_r(40, [half, half]).estimate == pytest.approx(240)


def test_more_noise_needs_more_cells():
    weak, strong = (stability(*as_tables(simulate(e)), n_cells=(10, 20), n_draws=10) for e in (0.8, 3.0))
    assert strong["cells_for_jaccard"].estimate < 20
    assert not weak["cells_for_jaccard"].estimate < strong["cells_for_jaccard"].estimate
    assert {"split", "subset", "bootstrap"} == set(weak.table["comparison"])


def test_disjoint_samples_share_no_cell():
    a, b = _disjoint(11, 5, np.random.default_rng(0))
    assert a.sum() == b.sum() == 5
    assert not (a & b).any()


def test_agreement_by_hand():
    a, b = np.array([1, 1, 1, 0, 0, 0], bool), np.array([1, 1, 0, 1, 0, 0], bool)
    d = np.array([1.0, -1.0, 2.0, -2.0, 9.0, 9.0])
    result = agreement(a, b, d, d * [1, 1, -1, 1, -1, -1])
    assert result.jaccard == 0.5
    assert result.expected_jaccard == pytest.approx(1.5 / 4.5)
    assert result.sign == 0.75
    assert result.r == pytest.approx(np.corrcoef([1, -1, 2, -2], [1, -1, -2, -2])[0, 1])
    assert np.isnan(agreement(a & ~a, a & ~a, d, d).jaccard)


def test_responses_where_the_source_is_silent_are_refused():
    effects, cells = as_tables(simulate(1.0))
    with pytest.raises(ScircuitError, match="does not fire"):
        stability(effects, cells[cells["source_feature"] != 2])
    with pytest.raises(ScircuitError, match="lacks delta"):
        stability(effects.drop(columns="delta"), cells)
    with pytest.raises(ScircuitError, match="at least 4 cells"):
        stability(effects[effects["cell"] < 103], cells[cells["cell"] < 103])


def grouped(values, split=N_CELLS // 2):
    tables = []
    for group, cells in (("B", slice(None, split)), ("T", slice(split, None))):
        for source in range(len(values)):
            tables.append(
                moments(values[source][:, cells]).assign(
                    group_name="cell_type",
                    group=group,
                    source_layer=0,
                    source_feature=source,
                    target_layer=1,
                    target_feature=np.arange(values.shape[1]),
                )
            )
    return pd.concat(tables)


def test_groups_with_one_effect_agree_and_are_not_heterogeneous():
    result = group_stability(grouped(simulate(2.0 * (-1.0) ** np.arange(15)[:, None])))
    assert result["cell_type_jaccard"].estimate > 0.95
    assert result["cell_type_r"].estimate > 0.9
    assert result["cell_type_heterogeneous_share"].estimate <= 0.05


def test_an_effect_of_one_group_only_is_heterogeneous():
    values = simulate(2.0)
    values[:, :15, N_CELLS // 2 :] = simulate(0.0, seed=1)[:, :15, N_CELLS // 2 :]
    result = group_stability(grouped(values))
    assert result["cell_type_jaccard"].estimate < 0.1
    assert result["cell_type_heterogeneous_share"].estimate > 0.95


def test_a_test_missing_in_a_group_is_no_response_there():
    whole = grouped(simulate(2.0))
    silent = (whole["group"] == "T") & (whole["target_feature"] < 15)
    zeroed = whole.assign(
        **{c: whole[c].where(~silent, 0) for c in ("n_nonzero", "n_pos", "n_neg", "mean_delta", "sd_delta", "cohens_d")}
    )
    zeroed["p_value"] = zeroed["p_value"].where(~silent, 1.0)
    missing, explicit = group_stability(whole[~silent]), group_stability(zeroed)
    pd.testing.assert_frame_equal(missing.measures, explicit.measures)


def test_group_refusals():
    table = grouped(simulate(1.0))
    with pytest.raises(ScircuitError, match="two groups"):
        group_stability(table[table["group"] == "B"])
    with pytest.raises(ScircuitError, match="lacks group"):
        group_stability(table.drop(columns="group"))


@pytest.fixture(scope="module")
def planted():
    return planted_circuit(n_latents=40, n_sources=20, n_directions=1, seed=4)


def renumbered(circuit, seed=0):
    """The same circuit under another dictionary: latents permuted within layers, and who matches whom."""
    rng = np.random.default_rng(seed)
    nodes = circuit.nodes[["layer", "feature"]]
    new = nodes.groupby("layer")["feature"].transform(lambda f: rng.permutation(f.to_numpy()))
    matches = nodes.assign(feature_first=nodes["feature"], feature_second=new, similarity=0.95)
    lookup = pd.Series(new.to_numpy(), pd.MultiIndex.from_frame(nodes))

    def rename(table, end):
        keys = pd.MultiIndex.from_frame(table[[f"{end}_layer", f"{end}_feature"]])
        return table.assign(**{f"{end}_feature": lookup.reindex(keys).to_numpy()})

    second = replace(
        circuit,
        edges=rename(rename(circuit.edges, "source"), "target"),
        tests=rename(circuit.tests, "source"),
        nodes=circuit.nodes.assign(feature=new).sort_values(["layer", "feature"], ignore_index=True),
    )
    return second, matches.drop(columns="feature")


def test_matched_dictionaries_show_the_same_edges(planted):
    second, matches = renumbered(planted.circuit)
    result = seed_stability(planted.circuit, second, matches, draws=50)
    assert result.estimate == 1
    assert result["r"].estimate == pytest.approx(1)
    assert result.null < 0.2
    assert result.headline.p_value == 1 / 51
    assert len(result.table) == len(planted.circuit.edges)


def test_wrong_matches_are_no_better_than_permuted_ones(planted):
    second, _ = renumbered(planted.circuit)
    _, other = renumbered(planted.circuit, seed=9)
    result = seed_stability(planted.circuit, second, other, draws=50)
    assert result.estimate < 0.2
    assert result.headline.p_value > 0.02


def test_only_the_better_of_two_partners_counts(planted):
    second, matches = renumbered(planted.circuit)
    worse = matches.assign(feature_second=0, similarity=0.8)
    both = seed_stability(planted.circuit, second, pd.concat([worse, matches]), draws=2)
    assert both.estimate == 1
    with pytest.raises(ScircuitError, match="min_similarity"):
        seed_stability(planted.circuit, second, matches, min_similarity=0.99)
    with pytest.raises(ScircuitError, match="lacks similarity"):
        seed_stability(planted.circuit, second, matches.drop(columns="similarity"))


def test_every_cell_of_the_sweep_is_a_circuit_of_its_own(planted):
    grid_d, grid_q = (0.2, 0.5, 1.5), (0.001, 0.05)
    result = threshold_sweep(planted.effects, planted.tests, grid_d, grid_q)
    for row in result.table.itertuples():
        rule = EdgeRule(min_abs_d=row.min_abs_d, max_q=row.max_q)
        circuit = build_circuit(planted.effects, planted.tests, planted.features, planted.terms, rule)
        assert row.n_edges == len(circuit.edges)
        assert row.n_random_edges == len(circuit.controls)
        assert row.supporting_share == pytest.approx((circuit.edges["mean_delta"] < 0).mean())
    assert result.estimate == len(planted.circuit.edges)
    with pytest.raises(ScircuitError, match="retention"):
        threshold_sweep(planted.effects, planted.tests, max_q=(0.5,))


def test_differences_between_groups_are_welchs():
    rng = np.random.default_rng(0)
    samples = [rng.normal(0, sd, n) for sd, n in ((1, 10), (2, 14), (3, 8))]
    moments = np.array([[x.mean(), x.var(ddof=1) / len(x), len(x)] for x in samples]).T[:, :, None]
    p = _welch_p(*moments, np.ones((3, 1), dtype=bool), np.array([3]))
    assert p[0] == pytest.approx(anova_oneway(samples, use_var="unequal").pvalue)
