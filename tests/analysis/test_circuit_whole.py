"""Numbers of the circuit as a whole, by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from builders import behaviour_table
from scircuit.analysis.circuit_curve import circuit_curve
from scircuit.analysis.circuit_tests import circuit_tests
from scircuit.analysis.circuit_variants import Variants
from scircuit.analysis.faithfulness import faithfulness
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, LATENT
from scircuit.errors import ScircuitError


@pytest.fixture
def table() -> pd.DataFrame:
    return behaviour_table(np.random.default_rng(0))


def mean(table: pd.DataFrame, words: str) -> float:
    return float(table.query(words)["value"].mean())


def test_faithfulness_and_completeness_by_hand(table: pd.DataFrame) -> None:
    result = faithfulness(table)
    kept = "ablation == 'mean' and error == 'kept'"
    nothing, model = mean(table, f"kind == 'empty' and {kept}"), mean(table, "kind == 'model'")
    for name, kind in (("faithfulness", "circuit"), ("completeness", "rest")):
        by_hand = (mean(table, f"kind == '{kind}' and {kept}") - nothing) / (model - nothing)
        random = (mean(table, f"kind == 'random_{kind}'") - nothing) / (model - nothing)
        assert result[name].estimate == pytest.approx(by_hand)
        assert result[name].null == pytest.approx(random)
        assert result[name].low < by_hand < result[name].high
        assert result[name].p_value == 1 / 5, "beyond all four random circuits"
    assert result["probe_accuracy"].estimate == pytest.approx(5 / 6)
    assert result["probe_accuracy"].null == 0.5
    right = table.assign(value=np.where(table["kind"] == "held_out", 1.0, table["value"]))
    assert faithfulness(right)["probe_accuracy"].low == pytest.approx(6 / (6 + 1.96**2)), (
        "six of six do not make certain"
    )


def test_donors_are_the_units_where_the_trace_took_them(table: pd.DataFrame) -> None:
    by_donor = table.assign(group=np.where(table["cell"] % 3 == 0, "a", np.where(table["cell"] % 3 == 1, "b", "c")))
    result = faithfulness(by_donor)
    assert (result["faithfulness"].n, result["faithfulness"].unit_of_n) == (3, "donors")
    assert result.estimate == pytest.approx(faithfulness(table).estimate)
    curve = circuit_curve(by_donor)
    assert (curve["cpr_d"].n, curve["cpr_d"].unit_of_n) == (3, "donors")
    wide = curve["cpr_d"].high - curve["cpr_d"].low
    drawn = circuit_curve(table)["cpr_d"]
    assert wide > 0, "by t, as a bootstrap of three is too narrow"
    assert curve["cpr_d"].high + curve["cpr_d"].low == pytest.approx(2 * drawn.estimate)


def test_a_behaviour_that_falls_is_carried_alike(table: pd.DataFrame) -> None:
    """As a loss does with every latent that is kept."""
    rising, falling = faithfulness(table), faithfulness(table.assign(value=1 - table["value"]))
    for name in ("faithfulness", "completeness"):
        np.testing.assert_allclose(rising[name][1:5], falling[name][1:5])


def test_what_cannot_be_told_is_refused_or_left_out(table: pd.DataFrame) -> None:
    model = table.loc[table["kind"] == "model"].set_index("cell")["value"]
    same = (table["kind"] == "empty") & (table["ablation"] == "zero")
    weak = table.assign(value=np.where(same, table["cell"].map(model), table["value"]))
    assert "faithfulness_zero" not in set(faithfulness(weak).measures["measure"])
    same = table["kind"] == "empty"
    for question in (faithfulness, circuit_curve, circuit_tests):
        with pytest.raises(ScircuitError, match="nothing that a circuit could carry"):
            question(table.assign(value=np.where(same, table["cell"].map(model), table["value"])))
    with pytest.raises(ScircuitError, match="scircuit faithfulness CONFIG"):
        faithfulness(table.drop(columns="kind"))


def test_areas_by_hand(table: pd.DataFrame) -> None:
    result = circuit_curve(table, draws=20)
    curve = result.table.query("unit == 'node' and order == 'd'").set_index("share")["faithfulness"]
    assert result["cpr_d"].estimate == pytest.approx(0.9 * (curve[0.1] + curve[1.0]) / 2)
    assert result["cmd_d"].estimate == pytest.approx(0.9 * (abs(1 - curve[0.1]) + abs(1 - curve[1.0])) / 2)
    assert result["cpr_d"].null == result["cpr_random"].estimate
    assert set(result.table["unit"]) == {"node", "edge"}


def test_tests_count_random_circuits(table: pd.DataFrame) -> None:
    result = circuit_tests(table)
    assert result["sufficient"].estimate == 1
    assert result["sufficient"].p_value == pytest.approx(stats.binom.sf(3, 4, 0.9)) == pytest.approx(0.9**4)
    assert result["equivalent"].estimate == 0
    assert 0 < result["equivalent"].high < 0.3, "none of twelve is not never"
    assert result["equivalent"].p_value == pytest.approx(0.6**12 + 0.4**12), "either side"
    assert result["minimal"].estimate == 1
    few = table[(table["kind"] != "beside") | (table["feature"] < 28)]
    assert "minimal" not in set(circuit_tests(few).measures["measure"]), "28 cannot tell"
    assert len(result.table) == 3
    few = table[table["kind"] != "random_circuit"]
    with pytest.raises(ScircuitError, match="--draws above 0"):
        circuit_tests(few)


def test_a_circuit_that_is_the_model_is_equivalent_and_beats_nothing(table: pd.DataFrame) -> None:
    """All that is drawn is the circuit itself."""
    model = table.loc[table["kind"] == "model"].set_index("cell")["value"]
    same = table["kind"].isin(["circuit", "random_circuit"])
    empty = table["kind"].isin(["rest", "random_rest"])
    value = np.where(same, table["cell"].map(model), np.where(empty, 0.0, table["value"]))
    result = circuit_tests(table.assign(value=value))
    assert (result["sufficient"].estimate, result["sufficient"].p_value) == (0, 1)
    assert (result["necessary"].estimate, result["necessary"].p_value) == (0, 1)
    assert result["equivalent"].estimate == 0.5
    assert result["equivalent"].p_value > 0.5
    with pytest.raises(ScircuitError, match="leaves latents out"):
        circuit_tests(table[table["kind"] != "beside"])


def circuit(n: int = 60) -> Circuit:
    """Edges from layer 0 to 2, latents of three layers that fire the more the higher their number."""
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers(0, 60, (n, 2)), axis=0)
    edges = pd.DataFrame({ENDS[0]: 0, ENDS[1]: pairs[:, 0], ENDS[2]: 2, ENDS[3]: pairs[:, 1]})
    edges = edges.assign(cohens_d=rng.standard_normal(len(edges)), weight_effect=rng.standard_normal(len(edges)))
    nodes = pd.MultiIndex.from_product([range(3), range(60)], names=LATENT).to_frame(index=False)
    nodes = nodes.assign(frequency=(1 + nodes["feature"]) / 100, mean_activation=1.0, n_firings=1 + nodes["feature"])
    nodes = nodes.assign(norm=1.0, attribution=-(nodes["feature"] + 1.0))
    return Circuit(edges, nodes, *[pd.DataFrame()] * 3)


def test_random_circuits_are_alike_in_layer_and_firing_rate() -> None:
    own = circuit()
    variants = Variants(own, own, own.nodes, 3, np.random.default_rng(0))
    third = 20  # 60 latents of a layer make three strata of twenty
    counts = pd.Series(list(zip(variants.members[:, 0], variants.members[:, 1] // third, strict=True))).value_counts()
    drawn = variants.randomised(5)
    assert len(drawn) == 10
    for variant in drawn:
        latents = variant.members
        assert len(np.unique(latents, axis=0)) == len(variants.members)
        found = pd.Series(list(zip(latents[:, 0], latents[:, 1] // third, strict=True))).value_counts()
        pd.testing.assert_series_equal(found.sort_index(), counts.sort_index())
    assert len({variant.key for variant in drawn}) == 10


def test_orders_begin_with_the_highest_score() -> None:
    own = circuit()
    variants = Variants(own, own, own.nodes, 3, np.random.default_rng(0))
    found = {(v.unit, v.order, v.share, v.draw): v for v in variants.orders((0.01, 1.0))}
    assert {order for _, order, *_ in found} == {"d", "weight", "rate_norm", "gradient", "random"}
    assert set(found["node", "gradient", 0.01, 0].members[:, 1]) == {59}
    strongest = own.edges.loc[own.edges["cohens_d"].abs().idxmax(), ENDS].tolist()
    assert found["edge", "d", 0.01, 0].members.tolist() == [strongest[:2], strongest[2:]]
    assert len(found["node", "d", 1.0, 0].members) == 180
    assert sorted(draw for _, order, _, draw in found if order == "random") == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_single_latents_leave_or_join_the_circuit() -> None:
    own = circuit()
    variants = Variants(own, own, own.nodes, 3, np.random.default_rng(0), "zero")
    size = len(variants.members)
    for variant in variants.single(5, 7):
        inside = [variant.layer, variant.feature] in variants.members.tolist()
        assert len(variant.members) == size + (1 if variant.kind == "beside" else -1)
        assert inside == (variant.kind == "without")
        assert variant.ablation == "zero"
    with pytest.raises(ScircuitError, match="it may be mean or zero"):
        Variants(own, own, own.nodes, 3, np.random.default_rng(0), "patch")
    with pytest.raises(ScircuitError, match="lies below layer 0"):
        Variants(own, own, own.nodes, 0, np.random.default_rng(0))
