"""Robustness to an analyst's choices, ablation as a factor, self-repair: each against truth that was planted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scircuit.analysis.ablation_words import ablation_words
from scircuit.analysis.robustness import CHOICES, robustness
from scircuit.analysis.self_repair import self_repair
from scircuit.circuits.rule import DEFAULT
from scircuit.circuits.schema import ENDS
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError
from scircuit.tracing.planted import planted
from scircuit.tracing.recovery import recover
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import trace

NO_SCALES = pd.DataFrame()


@pytest.fixture(scope="module")
def made():
    return planted_circuit(effect=1.0, seed=2)


def test_share_of_settings_by_hand(made):
    """Recounted setting by setting with the rule itself, without skew, sizes or decoys."""
    result = robustness(made.circuit, made.effects, made.tests, NO_SCALES, draws=20)
    own = made.effects[made.effects["kind"] == "latent"]
    n_tests = int(made.tests.loc[made.tests["kind"] == "latent", "n_tests"].sum())
    kept = []
    for d in CHOICES["min_abs_d"]:
        for c in CHOICES["min_consistency"]:
            for word in CHOICES["consistency"]:
                for q in CHOICES["max_q"]:
                    rule = replace(DEFAULT, min_abs_d=d, min_consistency=c, consistency=word, max_q=q)
                    kept.append(rule.passes(own, n_tests))
    share = own[ENDS].assign(expected=np.mean(kept, axis=0))
    found = result.table.merge(share, on=ENDS)
    assert len(found) == len(made.circuit.edges)
    np.testing.assert_allclose(found["share"], found["expected"])
    assert ((found["class"] == "core") == (found["expected"] == 1)).all()
    assert ((found["class"] == "noise") == (found["expected"] < 0.25)).all()
    assert result["core_share"].estimate == pytest.approx((found["expected"] == 1).mean())
    lax, strict = (result[f"kept_min_abs_d_{d}"].estimate for d in (0.3, 0.8))
    assert strict < lax


def test_strong_edges_are_core(made):
    result = robustness(made.circuit, made.effects, made.tests, NO_SCALES, draws=20)
    d = result.table.merge(made.circuit.edges[[*ENDS, "cohens_d"]], on=ENDS)
    by_class = d["cohens_d"].abs().groupby(d["class"]).median()
    assert by_class["core"] > by_class["contingent"]


def test_a_second_circuit_counts_by_latents_that_are_the_same(made):
    nodes = made.circuit.nodes
    matches = pd.DataFrame({"layer": nodes["layer"], "feature_first": nodes["feature"]})
    matches = matches.assign(feature_second=(nodes["feature"] + 7) % 48, similarity=1.0)
    edges = made.circuit.edges.iloc[::2]
    moved = edges.assign(**{c: (edges[c] + 7) % 48 for c in ("source_feature", "target_feature")})
    second = replace(made.circuit, edges=moved)
    result = robustness(made.circuit, made.effects, made.tests, NO_SCALES, second=second, matches=matches, draws=20)
    assert result["in_second"].estimate == pytest.approx(len(edges) / len(made.circuit.edges))
    assert result.table["in_second"].tolist() == [i % 2 == 0 for i in range(len(result.table))]


def test_without_an_edge_there_is_nothing_to_ask(made):
    empty = replace(made.circuit, edges=made.circuit.edges.iloc[:0])
    with pytest.raises(ScircuitError, match="no edge is reproducible"):
        robustness(empty, made.effects, made.tests, NO_SCALES)


def test_specific_edges_of_a_planted_model_hold_and_the_own_rule_is_one_setting(tmp_path):
    truth = planted(128, seed=0)
    found = recover(truth, 30, TraceSettings(engine="exact"))
    sources = {layer: list(range(20)) for layer in range(2)}
    out = trace(truth.model, truth.saes, truth.cells(30), sources, tmp_path, settings=TraceSettings(engine="exact"))
    effects, tests, scales = (pd.read_parquet(out / f"{name}.parquet") for name in ("effects", "tests", "scales"))
    circuit = found.circuit.at("specific")
    result = robustness(circuit, effects, tests, scales, draws=20)
    assert result["core_share"].estimate > 0.5
    assert (result.table["share"] > 0).all()
    wide = robustness(found.circuit.at("reproducible"), effects, tests, scales, draws=20)
    assert wide["mean_share"].estimate < result["mean_share"].estimate


def other_word(effects, tests, kind, change):
    """The latents' own ablations under another word, their responses changed by `change(effects)`."""
    own = change(effects[effects["kind"] == "latent"].assign(kind=kind, draw=0))
    made = tests[tests["kind"] == "latent"].assign(kind=kind)
    everything = [pd.concat(pair, ignore_index=True) for pair in ((effects, own), (tests, made))]
    return everything


def test_words_that_agree_and_words_that_do_not(made):
    effects = made.effects.assign(kind=made.effects["kind"].astype(str))
    tests = made.tests.assign(kind=made.tests["kind"].astype(str))
    effects, tests = other_word(effects, tests, "mean", lambda t: t.assign(cohens_d=0.9 * t["cohens_d"]))
    flipped = {"cohens_d": lambda t: -t["cohens_d"], "mean_delta": lambda t: -t["mean_delta"]}
    effects, tests = other_word(effects, tests, "resample", lambda t: t.assign(**flipped))
    result = ablation_words(effects, tests, draws=50)
    assert result["kept_mean"].estimate > 0.9 > result["kept_mean"].null
    assert result["r_mean"].estimate == pytest.approx(1)
    assert result["sign_resample"].estimate == 0
    assert result.table.set_index("word")["slope"].to_dict() == pytest.approx({"mean": 0.9, "resample": -1})
    with pytest.raises(ScircuitError, match=r"trace.interventions = \['mean'"):
        ablation_words(made.effects, made.tests)


def pairs(change, n_cells=40, n_targets=12):
    """A pair of sources in eight sets whose joint response is `change(first, second)`."""
    rng = np.random.default_rng(0)
    rows = []
    for set_id in range(8):
        for target in range(n_targets):
            own = rng.normal(-1, 0.1, (2, n_cells))
            for subset, delta in ((1, own[0]), (2, own[1]), (3, change(*own))):
                rows += [(set_id, subset, 3, target, cell, value) for cell, value in enumerate(delta)]
    names = ["set_id", "subset", "target_layer", "target_feature", "cell", "delta"]
    sets = pd.DataFrame([(s, m, 0, m, n_cells) for s in range(8) for m in range(2)])
    return pd.DataFrame(rows, columns=names), sets.set_axis(["set_id", "member", "layer", "feature", "n_cells"], axis=1)


@pytest.mark.parametrize(
    ("change", "gain"),
    [(lambda a, b: a + b, 0.0), (lambda a, b: 1.5 * (a + b), 1.0), (lambda a, b: (a + b) / 2, -1.0)],
    ids=["they add up", "each stands in for the other", "they do the same work"],
)
def test_self_repair_by_hand(change, gain):
    result = self_repair(*pairs(change), draws=100)
    assert result.estimate == pytest.approx(gain, abs=0.02)
    share = {1.0: "repaired_share", -1.0: "overlapping_share"}.get(gain)
    assert all(m.estimate == (m.measure == share) for m in (result["repaired_share"], result["overlapping_share"]))


def test_pairs_that_move_nothing_in_common_are_refused():
    effects, sets = pairs(lambda a, b: a + b)
    with pytest.raises(ScircuitError, match="no pair of sources"):
        self_repair(effects.assign(delta=0.0), sets)
