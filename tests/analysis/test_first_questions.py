"""Sign balance, attenuation, effect sizes and hubs against planted truth, pandas and statsmodels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from scircuit.analysis.attenuation import attenuation, decay_rate
from scircuit.analysis.effect_comparison import compare_effect_sizes
from scircuit.analysis.effect_sizes import effect_sizes, effect_units
from scircuit.analysis.hubs import degrees, exposed, gini, hubs
from scircuit.analysis.layer_pairs import layer_pairs
from scircuit.analysis.nodes import NodeIndex
from scircuit.analysis.sign_balance import sign_balance
from scircuit.analysis.subsample import at_equal_cells
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError


@pytest.fixture(scope="module")
def planted():
    return planted_circuit(n_latents=60, n_sources=25, seed=5)


@pytest.fixture(scope="module")
def circuit(planted):
    return planted.circuit


def empty(circuit):
    return replace(circuit, edges=circuit.edges.iloc[:0], controls=circuit.controls.iloc[:0])


def per_cell(n_cells, seed):
    """Responses of six sources on forty targets, d = 0.1, as `cell_effects` and `source_cells`."""
    rng = np.random.default_rng(seed)
    source, target, cell = (a.ravel() for a in np.indices((6, 40, n_cells)))
    ends = {"source_layer": 0, "source_feature": source, "target_layer": 1, "target_feature": target}
    effects = pd.DataFrame(ends | {"cell": cell, "delta": rng.normal(0.1, 1, len(cell))})
    return effects, effects[["source_layer", "source_feature", "cell"]].drop_duplicates()


def circuit_of_cells(effects, fires):
    """Every pair an edge, with d over all cells."""
    nodes = pd.DataFrame({"layer": np.repeat([0, 1], 40), "feature": np.tile(np.arange(40), 2), "frequency": 0.01})
    groups = effects.groupby(ENDS)["delta"]
    edges = (groups.mean() / groups.std()).rename("cohens_d").reset_index()
    edges["n_cells"] = effects["cell"].nunique()
    return Circuit(edges, nodes, pd.DataFrame(), edges.iloc[:0], pd.DataFrame(), {"model": {"n_layers": 2}})


class TestSignBalance:
    def test_share_and_null_are_plain_means(self, circuit):
        share = sign_balance(circuit)["supporting_share"]
        assert share.estimate == pytest.approx((circuit.edges["mean_delta"] < 0).mean())
        assert share.null == pytest.approx((circuit.controls["mean_delta"] < 0).mean())
        assert share.n == len(circuit.edges)

    def test_interval_covers_what_was_planted_and_p_sees_the_excess(self, circuit):
        result = sign_balance(circuit)
        assert result["supporting_share"].low < 0.7 < result["supporting_share"].high
        excess = result["excess_over_random"]
        assert excess.low < 0.2 < excess.high
        assert excess.p_value < 0.01

    def test_p_tests_the_excess_that_is_shown(self):
        """Uniform where sources and their random directions are alike; small where a few large sources differ."""
        from scircuit.analysis.sign_balance import _exchange_p

        rng = np.random.default_rng(1)
        p = []
        for _ in range(200):
            size = rng.integers(1, 400, 20)
            share = rng.uniform(0.2, 0.8, 20)
            own, random = (np.column_stack([rng.binomial(size, share), size]).astype(float) for _ in range(2))
            p.append(_exchange_p(own, random, rng, draws=200))
        assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.10
        size = np.array([400] * 8 + [2] * 12)
        own = np.column_stack([np.where(size == 400, 300, 1), size]).astype(float)
        random = np.column_stack([size / 2, size])
        assert _exchange_p(own, random, rng) < 0.02

    def test_turning_every_response_around_turns_the_share(self, circuit):
        turned = replace(circuit, edges=circuit.edges.assign(mean_delta=-circuit.edges["mean_delta"]))
        assert sign_balance(turned).estimate == pytest.approx(1 - sign_balance(circuit).estimate)

    def test_a_pure_residual_copy_is_all_copy(self, circuit):
        source = NodeIndex.of(circuit.nodes).sources(circuit.edges)
        copy = -circuit.edges["weight_effect"] * circuit.nodes["mean_activation"].to_numpy()[source]
        scale = 1 + circuit.edges["target_layer"] + 0.1 * circuit.edges["source_layer"]
        result = sign_balance(replace(circuit, edges=circuit.edges.assign(mean_delta=copy * scale)))
        assert result["copy_share"].estimate == pytest.approx(1, abs=1e-6)
        assert result["copy_sign_agreement"].estimate == 1

    def test_weights_without_relation_explain_nothing(self, circuit):
        rng = np.random.default_rng(0)
        noise = circuit.edges.assign(weight_effect=rng.standard_normal(len(circuit.edges)))
        result = sign_balance(replace(circuit, edges=noise))
        assert result["copy_share"].estimate < 0.05
        assert result["copy_sign_agreement"].low < 0.5 < result["copy_sign_agreement"].high
        assert result["supporting_share_of_rest"].estimate == pytest.approx(
            result["supporting_share"].estimate, abs=0.05
        )

    def test_table_by_layer_pair(self, circuit):
        table = sign_balance(circuit).table.set_index(["source_layer", "target_layer"])
        for pair, rows in circuit.edges.groupby(["source_layer", "target_layer"]):
            assert table.loc[pair, "n_edges"] == len(rows)
            assert table.loc[pair, "supporting_share"] == pytest.approx((rows["mean_delta"] < 0).mean())

    def test_without_controls_the_null_is_unknown(self, circuit):
        result = sign_balance(replace(circuit, controls=circuit.controls.iloc[:0]))
        assert np.isnan(result.null)
        assert 0 < result.interval[0] < result.estimate < result.interval[1] < 1

    def test_what_the_copy_alone_would_do(self, circuit):
        source = NodeIndex.of(circuit.nodes).sources(circuit.edges)
        copy = -circuit.edges["weight_effect"] * circuit.nodes["mean_activation"].to_numpy()[source]
        result = sign_balance(circuit)
        assert result["supporting_share_of_copy"].estimate == pytest.approx((copy < 0).mean())
        random = result["random_supporting_share"]
        assert random.low < random.estimate == result.null < random.high

    def test_a_circuit_under_the_published_rule_says_so(self, circuit):
        rule = circuit.provenance["thresholds"] | {"consistency": "zero_as_negative"}
        published = replace(circuit, provenance=circuit.provenance | {"thresholds": rule})
        assert "too high" in sign_balance(published).glossary
        assert "too high" not in sign_balance(circuit).glossary

    def test_glossary_explains_the_published_word(self, circuit):
        assert "inhibitory" in sign_balance(circuit).glossary


class TestAttenuation:
    @given(st.integers(0, 1000))
    def test_slope_is_weighted_least_squares_with_layer_levels(self, seed):
        rng = np.random.default_rng(seed)
        layer = np.repeat([0, 1, 2], [4, 3, 2])
        distance = np.concatenate([np.arange(1, 5), np.arange(1, 4), np.arange(1, 3)])
        n_edges, n_tests = rng.integers(0, 4, 9), rng.integers(100, 200, 9)
        design = np.column_stack([distance, layer[:, None] == np.arange(3)]).astype(float)
        poisson = sm.GLM(n_edges, design, family=sm.families.Poisson(), offset=np.log(n_tests)).fit()
        if not n_edges.any():
            return
        assert decay_rate(n_edges, n_tests, layer, distance) == pytest.approx(-poisson.params[0], abs=1e-6)

    def test_zeros_do_not_flatten_the_decay(self):
        """A regression of logs, which drops the empty cells, read a rate of .8 as .6."""
        rng = np.random.default_rng(4)
        layer, target = np.triu_indices(7, 1)
        distance = target - layer
        made = np.full(len(layer), 800.0)
        drawn = rng.poisson(made * 1e-2 * np.exp(-0.8 * (distance - 1)), (4000, len(layer))).astype(float)
        rates = decay_rate(drawn, np.broadcast_to(made, drawn.shape), layer, distance)
        assert np.nanmedian(rates) == pytest.approx(0.8, abs=0.04)

    def test_edges_at_the_nearest_distance_alone_decay_at_once(self):
        layer, distance, made = np.zeros(3, int), np.array([1, 2, 3]), np.full(3, 100.0)
        assert decay_rate(np.array([5.0, 0, 0]), made, layer, distance) == np.inf
        assert decay_rate(np.array([0.0, 0, 5]), made, layer, distance) == -np.inf
        assert np.isnan(decay_rate(np.zeros(3), made, layer, distance))

    def test_planted_decay_is_covered(self):
        circuit = planted_circuit(
            n_layers=6, n_latents=80, n_sources=20, decay=0.7, n_cells=30, n_directions=0, seed=1
        ).circuit
        result = attenuation(circuit)
        rate, length = result["decay_rate"], result["decay_length"]
        assert rate.low < -np.log(0.7) < rate.high
        assert length.estimate == pytest.approx(1 / rate.estimate)
        assert length.low < length.estimate < length.high

    def test_counts_of_the_table(self, circuit):
        table = attenuation(circuit).table
        own = table[table["kind"] == "latent"]
        assert own["n_edges"].sum() == len(circuit.edges)
        assert table.loc[table["kind"] == "random", "n_edges"].sum() == len(circuit.controls)
        assert own["n_tests"].sum() == circuit.provenance["n_tests"]

    def test_one_distance_has_no_rate(self):
        result = attenuation(planted_circuit(n_layers=2, seed=0).circuit)
        assert np.isnan(result.estimate)


class TestEffectSizes:
    def test_units_by_hand(self):
        edges = pd.DataFrame(
            {
                "mean_delta": [-2.0, 1.0, -1.0],
                "cohens_d": [-1.5, 0.8, -2.5],
                "clean_mean": [4.0, 2.0, 0.0],
                "clean_sd": [1.0, 0.0, 0.5],
            }
        )
        units = effect_units(edges)
        np.testing.assert_allclose(units["abs_d"], [1.5, 0.8, 2.5])
        np.testing.assert_allclose(units["in_clean_sd"], [2.0, np.nan, 2.0])
        np.testing.assert_allclose(units["share_lost"], [0.5, np.nan, np.nan])

    def test_quantiles_agree_with_pandas(self, circuit):
        table = effect_sizes(circuit).table
        ours = table[table["unit"] == "abs_d"].set_index(["source_layer", "target_layer"])
        oracle = (
            circuit.edges["cohens_d"]
            .abs()
            .astype(float)
            .groupby([circuit.edges["source_layer"], circuit.edges["target_layer"]])
        )
        np.testing.assert_allclose(ours["q25"], oracle.quantile(0.25))
        np.testing.assert_allclose(ours["q95"], oracle.quantile(0.95))
        np.testing.assert_allclose(ours["max"], oracle.max())

    def test_every_unit_has_its_null(self, circuit):
        result, units = effect_sizes(circuit), effect_units(circuit.controls)
        assert result["mean_in_clean_sd"].null == pytest.approx(units["in_clean_sd"].mean())
        assert result["mean_share_lost"].null == pytest.approx(units["share_lost"].mean())
        table = result.table
        assert table.loc[table["unit"] == "abs_d", "n_random"].sum() == len(circuit.controls)

    def test_headline(self, circuit):
        size = circuit.edges["cohens_d"].abs()
        result = effect_sizes(circuit)
        assert result.estimate == pytest.approx(size.mean(), rel=1e-5)
        assert result.interval[0] < size.mean() < result.interval[1]
        assert result["share_abs_d_above_1"].estimate == pytest.approx((size > 1).mean())

    def test_a_model_does_not_differ_from_itself(self, circuit):
        result = compare_effect_sizes(circuit, circuit)
        assert result.estimate == 0
        assert result.interval[0] < 0 < result.interval[1]
        assert result["share_compared"].estimate == 1

    def test_different_mixtures_of_depth_do_not_make_a_difference(self, circuit):
        """Effects that depend on depth alone, of which the second circuit has other shares."""
        d = 1.0 + circuit.edges["target_layer"]
        first = replace(circuit, edges=circuit.edges.assign(cohens_d=d))
        shallow = first.edges[(first.edges["target_layer"] < 3) | (first.edges.index % 5 == 0)]
        second = replace(first, edges=shallow)
        assert abs(first.edges["cohens_d"].mean() - second.edges["cohens_d"].mean()) > 0.2
        assert compare_effect_sizes(first, second, n_depth_bins=4).estimate == pytest.approx(0, abs=1e-9)

    def test_more_cells_are_no_difference(self):
        """One population of small effects measured on 30 and on 300 cells; with fewer cells |d| is larger by noise."""
        cells = [per_cell(n, seed) for seed, n in enumerate((30, 300))]
        circuits = [circuit_of_cells(*tables) for tables in cells]
        raw = [circuit.edges["cohens_d"].abs().mean() for circuit in circuits]
        assert raw[0] > raw[1] + 0.04
        result = compare_effect_sizes(*circuits, cells=tuple(cells))
        assert result["difference"].low < 0 < result["difference"].high
        assert abs(result.estimate) < 0.02
        assert "over 30 cells" in result.null_model

    def test_d_over_all_cells_is_the_d_of_the_trace(self):
        effects, fires = per_cell(30, 0)
        circuit = circuit_of_cells(effects, fires)
        again = at_equal_cells(circuit, effects, fires, 30, np.random.default_rng(0))
        np.testing.assert_allclose(again.edges["cohens_d"], circuit.edges["cohens_d"])
        assert at_equal_cells(circuit, effects, fires, 31, np.random.default_rng(0)).edges.empty

    def test_nothing_in_common_is_refused(self, circuit):
        other = replace(circuit, edges=circuit.edges.assign(n_cells=5000))
        with pytest.raises(ScircuitError, match="same number of cells"):
            compare_effect_sizes(circuit, other)


class TestHubs:
    @given(st.lists(st.integers(0, 20), min_size=1, max_size=30).filter(any))
    def test_gini_is_the_mean_absolute_difference(self, values):
        x = np.array(values, float)
        assert gini(x) == pytest.approx(np.abs(x[:, None] - x).mean() / (2 * x.mean()))

    def test_degrees_agree_with_pandas(self, circuit):
        table = degrees(circuit).set_index(["layer", "feature"])
        out = circuit.edges.groupby(["source_layer", "source_feature"])["cohens_d"].agg(
            ["size", lambda d: d.abs().sum()]
        )
        np.testing.assert_array_equal(table.loc[out.index, "out_degree"], out["size"])
        np.testing.assert_allclose(table.loc[out.index, "out_strength"], out.iloc[:, 1], rtol=1e-5)
        assert table["out_degree"].sum() == table["in_degree"].sum() == len(circuit.edges)
        assert table["is_source"].sum() == 75
        assert not table["is_target"].loc[0].any()

    def test_residual_agrees_with_statsmodels(self, circuit):
        table = hubs(circuit).table
        side = table[table["is_source"]]
        logs = np.log(side[["frequency", "mean_activation"]].to_numpy(float))
        design = np.column_stack([logs, side["layer"].to_numpy()[:, None] == np.arange(3)]).astype(float)
        fit = sm.OLS(np.log1p(side["out_degree"].to_numpy()), design).fit()
        np.testing.assert_allclose(side["out_residual"], fit.resid, atol=1e-6)

    def test_degree_that_is_firing_rate_leaves_no_residual(self, circuit):
        nodes = circuit.nodes.assign(frequency=(1 + degrees(circuit)["out_degree"]) ** 2 / 1e6)
        assert hubs(replace(circuit, nodes=nodes))["explained_out"].estimate == pytest.approx(1, abs=1e-6)

    def test_gini_interval_holds_the_estimate(self, circuit):
        out = hubs(circuit)["gini_out"]
        assert out.low < out.estimate < out.high

    def test_null_keeps_the_edges_of_each_layer_pair(self, circuit):
        rng = np.random.default_rng(0)
        index = NodeIndex.of(circuit.nodes)
        layer = circuit.nodes["layer"].to_numpy()
        for end, rows in (("out", index.sources(circuit.edges)), ("in", index.targets(circuit.edges))):
            own = np.bincount(layer[rows], minlength=4)
            drawn = np.mean([np.bincount(layer, d, minlength=4) for d in exposed(circuit, end, rng, 50)], axis=0)
            np.testing.assert_allclose(drawn, own, rtol=0.05)

    def test_sources_and_targets_are_counted_apart(self, circuit):
        result = hubs(circuit)
        assert (result["gini_out"].n, result["gini_out"].unit_of_n) == (75, "sources")
        assert (result["gini_in"].n, result["gini_in"].unit_of_n) == (result.table["is_target"].sum(), "targets")
        silent = replace(circuit, nodes=circuit.nodes.assign(n_firings=0))
        assert hubs(silent)["gini_in"].n == (result.table["in_degree"] > 0).sum()

    def test_strongest_first(self, circuit):
        assert hubs(circuit).table["out_degree"].is_monotonic_decreasing

    def test_tail_is_reported_when_there_is_one(self, circuit):
        names = set(hubs(circuit).measures["measure"])
        assert {"tail_exponent", "tail_against_lognormal", "in_tail_exponent", "in_tail_against_exponential"} <= names
        few = planted_circuit(n_layers=2, n_sources=5, seed=0).circuit
        assert not any(name.startswith("tail_") for name in hubs(few).measures["measure"])


@pytest.mark.parametrize("ask", [sign_balance, attenuation, effect_sizes, hubs])
def test_a_circuit_without_edges_is_refused_with_a_way_out(circuit, ask):
    with pytest.raises(ScircuitError, match="lower the thresholds"):
        ask(empty(circuit))


@pytest.mark.parametrize("ask", [sign_balance, attenuation, hubs])
def test_same_seed_same_answer(circuit, ask):
    pd.testing.assert_frame_equal(ask(circuit, seed=3).measures, ask(circuit, seed=3).measures)


def test_every_layer_pair_is_counted(circuit):
    pairs = layer_pairs(circuit)
    assert pairs["n_edges"].sum() == len(circuit.edges)
    assert pairs["n_tests"].sum() == circuit.provenance["n_tests"]
    assert pairs["n_random_tests"].sum() == circuit.provenance["n_control_tests"]
    assert (pairs["n_sources"] == 25).all()
    assert (pairs["random_directions"] == 2).all()
    assert (layer_pairs(empty(circuit))["n_edges"] == 0).all()


def test_identical_responses_have_no_standardised_size(circuit):
    """An sd of 0 makes d infinite: such an edge counts as an edge, but not in means of |d|."""
    d = circuit.edges["cohens_d"].where(circuit.edges.index != 0, -np.inf).astype("float32")
    odd = replace(circuit, edges=circuit.edges.assign(cohens_d=d))
    finite = np.abs(d[1:])
    assert effect_sizes(odd).estimate == pytest.approx(finite.mean(), rel=1e-5)
    assert effect_sizes(odd)["mean_abs_d"].n == len(finite)
    table = hubs(odd).table
    assert table["out_degree"].sum() == len(d)
    assert table["out_strength"].sum() == pytest.approx(finite.sum(), rel=1e-4)
    assert np.isfinite(compare_effect_sizes(odd, circuit).estimate)


def test_edges_of_unknown_latents_are_refused(circuit):
    for feature in (60, 10_000, -1):
        edges = circuit.edges.assign(source_feature=feature)
        with pytest.raises(ScircuitError, match=f"latent {feature} of layer"):
            sign_balance(replace(circuit, edges=edges))
