import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.grades import sentences
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.circuits.schema import EDGES, ENDS, GRADES
from scircuit.circuits.synthetic import moments, planted_circuit
from scircuit.errors import ScircuitError
from scircuit.published.definitions import PAPER

TABLES = ("edges", "nodes", "tests", "controls", "terms")


@pytest.fixture(scope="module")
def planted():
    return planted_circuit(seed=3)


def rebuild(planted, rule=DEFAULT, **changes):
    tables = {name: getattr(planted, name) for name in ("effects", "tests", "features", "terms")} | changes
    return build_circuit(**tables, rule=rule)


def test_planted_edges_are_recovered_with_their_signs(planted):
    found = planted.circuit.edges.merge(planted.truth, on=ENDS, how="outer", indicator=True)
    assert (found["_merge"] == "both").mean() > 0.97
    both = found[found["_merge"] == "both"]
    assert (np.sign(both["mean_delta"]) == both["sign"]).all()


def test_q_values_are_those_of_the_whole_family():
    """Effects hold retained tests only; the oracle sees every p of a small trace."""
    rng = np.random.default_rng(0)
    deltas = rng.standard_normal((300, 25)) + 0.9 * (np.arange(300) < 40)[:, None]
    every = moments(deltas).assign(
        source_layer=0,
        source_feature=1,
        target_layer=1,
        target_feature=np.arange(300),
        clean_mean=1.0,
        clean_sd=1.0,
        weight_effect=0.0,
        kind="latent",
        draw=0,
    )
    kept = every[every["p_value"] <= 0.05]
    tests = pd.DataFrame(
        [
            {
                "source_layer": 0,
                "source_feature": 1,
                "target_layer": 1,
                "kind": "latent",
                "draw": 0,
                "n_cells": 25,
                "n_targets": 300,
                "n_tests": 300,
                "n_retained": len(kept),
            }
        ]
    )
    features = pd.DataFrame(
        {
            "layer": np.repeat([0, 1], 300),
            "feature": np.tile(np.arange(300), 2),
            "label": "",
            "frequency": 0.1,
            "mean_activation": 1.0,
            "top_genes": [["A"]] * 600,
            "n_terms": 0,
            "n_firings": 10,
        }
    )
    terms = planted_circuit(n_layers=2, n_latents=8, n_sources=1, seed=0).terms.iloc[:0]
    rule = EdgeRule(min_abs_d=0, min_consistency=0, min_nonzero=0)
    circuit = build_circuit(kept, tests, features, terms, rule)
    q = false_discovery_control(every["p_value"])
    expected = every.assign(q_value=q)[q < 0.05].sort_values("target_feature")
    np.testing.assert_array_equal(circuit.edges["target_feature"], expected["target_feature"])
    np.testing.assert_allclose(circuit.edges["q_value"], expected["q_value"], rtol=1e-12)
    assert circuit.provenance["n_tests"] == 300
    assert circuit.nodes["is_source"].sum() == 1


def test_latents_and_directions_are_two_families(planted):
    fewer = planted.effects[planted.effects["kind"] == "latent"]
    tests = planted.tests[planted.tests["kind"] == "latent"]
    alone = rebuild(planted, effects=fewer, tests=tests)
    pd.testing.assert_frame_equal(alone.edges, planted.circuit.edges)
    assert len(planted.circuit.controls) > 0
    assert alone.controls.empty
    assert list(alone.controls.columns) == list(planted.circuit.controls.columns)


@given(d=st.floats(0, 2), consistency=st.floats(0, 1), q=st.floats(0.001, 0.05), nonzero=st.integers(0, 60))
def test_every_edge_passes_and_every_other_test_fails(planted, d, consistency, q, nonzero):
    rule = EdgeRule(d, consistency, q, nonzero)
    edges = rebuild(planted, rule).edges
    everything = rebuild(planted, EdgeRule(0, 0, 0.05, 0)).edges
    # As stored, then in float64: at a threshold the same numbers in another precision would decide otherwise.
    stored_d = everything["cohens_d"].abs().astype("float64")
    agree = everything[["n_pos", "n_neg"]].max(axis=1) / everything["n_nonzero"]
    passes = everything[
        (stored_d > d) & (agree > consistency) & (everything["q_value"] < q) & (everything["n_nonzero"] >= nonzero)
    ]
    pd.testing.assert_frame_equal(edges, passes.reset_index(drop=True))


def test_paper_rule_by_hand():
    """Ten cells: six rise, four silent. Zeros as negative: max(6, 4) / 10; zeros abstaining: 6 / 6."""
    base = planted_circuit(n_layers=2, n_latents=80, n_sources=1, n_cells=10, n_directions=0, seed=1)
    row = base.effects.iloc[[0]].assign(n_cells=10, n_nonzero=6, n_pos=6, n_neg=0, p_value=0.04, cohens_d=1.0)
    assert rebuild(base, PAPER, effects=row).edges.empty
    silent_negative = row.assign(n_nonzero=3, n_pos=0, n_neg=3)
    assert rebuild(base, PAPER, effects=silent_negative).edges["consistency"].tolist() == [1.0]
    many = pd.concat([row.assign(target_feature=i, cohens_d=-1 - i / 100, n_pos=0, n_neg=6) for i in range(60)])
    tests = base.tests.assign(n_tests=80)
    kept = rebuild(base, PAPER, effects=many, tests=tests).edges
    assert kept["target_feature"].tolist() == list(range(10, 60))


def test_symmetric_signs_with_many_zeros():
    """Exactly symmetric effects in a random share of cells: only the published rule sees an excess of
    falls."""
    rng = np.random.default_rng(0)
    n_targets, n_cells = 6000, 200
    responds = rng.random((n_targets, n_cells)) < rng.uniform(0, 0.8, (n_targets, 1))
    sign = rng.choice([-1, 1], (n_targets, 1))
    deltas = np.where(responds, sign * np.abs(rng.normal(1.5, 0.5, responds.shape)), 0.0)
    assert 0.55 < (deltas == 0).mean() < 0.65
    base = planted_circuit(n_layers=2, n_latents=4, n_sources=1, n_cells=10, n_directions=0, seed=0)
    effects = moments(deltas).assign(
        source_layer=0,
        source_feature=0,
        target_layer=1,
        target_feature=np.arange(n_targets),
        clean_mean=1.0,
        clean_sd=1.0,
        weight_effect=0.0,
        kind="latent",
        draw=0,
    )
    effects = effects[effects["p_value"] <= 0.05]
    tests = base.tests.assign(source_feature=0, n_tests=n_targets, n_targets=n_targets, n_cells=n_cells)

    def share(rule):
        return (rebuild(base, rule, effects=effects, tests=tests).edges["mean_delta"] < 0).mean()

    assert 0.45 <= share(EdgeRule()) <= 0.55
    assert share(replace(PAPER, top_k=None)) > 0.6


def test_few_cells_under_a_rule_without_test_are_announced(planted, caplog):
    tests = planted.tests.assign(n_cells=8)
    with caplog.at_level(logging.WARNING):
        rebuild(planted, PAPER, tests=tests)
        assert "too few cells" in caplog.text
        caplog.clear()
        rebuild(planted, PAPER)
    assert not caplog.text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda p: rebuild(p, EdgeRule(max_q=0.1)), "max_q is 0.1"),
        (lambda p: rebuild(p, effects=p.effects.drop(columns="n_pos")), "lacks n_pos"),
        (lambda p: rebuild(p, tests=p.tests.iloc[:2]), "different traces"),
        (lambda p: rebuild(p, effects=p.effects.assign(n_cells=1.5)), "n_cells"),
        (lambda p: rebuild(p, effects=p.effects.assign(source_feature=np.nan)), "source_feature"),
        (lambda p: EdgeRule(consistency="majority"), "zero_as_negative"),
        (lambda p: EdgeRule(max_q=0), "max_q"),
        (lambda p: EdgeRule(min_abs_d=-1), "min_abs_d"),
        (lambda p: EdgeRule(top_k=0), "top_k"),
    ],
)
def test_refusals(planted, change, word):
    with pytest.raises(ScircuitError, match=word):
        change(planted)


def test_write_and_read_back(planted, tmp_path):
    planted.circuit.write(tmp_path / "c")
    back = Circuit.read(tmp_path / "c")
    for name in TABLES:
        ours, theirs = getattr(planted.circuit, name), getattr(back, name)
        if name == "nodes":
            assert [list(g) for g in theirs["top_genes"]] == ours["top_genes"].tolist()
            ours, theirs = ours.drop(columns="top_genes"), theirs.drop(columns="top_genes")
        pd.testing.assert_frame_equal(ours, theirs)
    assert back.provenance == planted.circuit.provenance
    assert back.run_id == planted.circuit.run_id
    assert dict(back.edges.dtypes.astype(str)) == {**EDGES, "grade": "category"}


def test_read_only_the_columns_asked_for(planted, tmp_path):
    planted.circuit.write(tmp_path)
    back = Circuit.read(tmp_path, edge_columns=["cohens_d"])
    assert list(back.edges.columns) == [*ENDS, "cohens_d", "grade"]
    with pytest.raises(ScircuitError, match="has no column colour"):
        Circuit.read(tmp_path, edge_columns=["colour"])


def test_same_run_may_be_written_again_another_may_not(planted, tmp_path):
    planted.circuit.write(tmp_path)
    later = replace(planted.circuit, provenance=planted.circuit.provenance | {"created": "tomorrow"})
    later.write(tmp_path)
    other = replace(planted.circuit, provenance=planted.circuit.provenance | {"seed": 9})
    before = (tmp_path / "edges.parquet").stat().st_mtime_ns
    with pytest.raises(ScircuitError, match="different run"):
        other.write(tmp_path)
    assert (tmp_path / "edges.parquet").stat().st_mtime_ns == before


def test_half_written_and_foreign_folders_are_refused(planted, tmp_path):
    planted.circuit.write(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"format_version": 99}))
    with pytest.raises(ScircuitError, match="format_version 99"):
        Circuit.read(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ScircuitError, match=r"run\.json does not exist"):
        Circuit.read(tmp_path)
    planted.circuit.write(tmp_path)
    (tmp_path / "edges.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ScircuitError, match="not a readable Parquet"):
        Circuit.read(tmp_path)
    (tmp_path / "edges.parquet").unlink()
    with pytest.raises(ScircuitError, match=r"edges\.parquet does not exist"):
        Circuit.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ScircuitError, match="is a file"):
        planted.circuit.write(tmp_path / "file")


def test_interrupted_write_is_not_a_circuit(planted, tmp_path, monkeypatch):
    planted.circuit.write(tmp_path)

    def stop(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", stop)
    with pytest.raises(KeyboardInterrupt):
        planted.circuit.write(tmp_path)
    with pytest.raises(ScircuitError, match=r"run\.json"):
        Circuit.read(tmp_path)


def test_room_imports_without_torch():
    import subprocess
    import sys

    code = "import scircuit.circuits.synthetic, scircuit.analysis.layer_pairs, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_edges_that_rest_on_skewed_responses_are_counted_and_told(planted):
    tail = np.where(planted.effects["mean_delta"] > 0, -4.0, 4.0) * (planted.effects["target_feature"] % 2)
    effects = planted.effects.assign(skewness=tail)
    circuit, allowed = (rebuild(planted, EdgeRule(allow_for_skew=a), effects=effects) for a in (False, True))
    n_skewed = circuit.provenance["n_skewed"]
    assert 0 < n_skewed == len(circuit.edges) - len(allowed.edges)
    assert allowed.provenance["n_skewed"] == 0
    assert any(f"{n_skewed:,} of the" in line for line in sentences(circuit.provenance))
    assert rebuild(planted).provenance["n_skewed"] is None


def test_a_wider_circuit_is_whole_whatever_was_read_before(planted, tmp_path):
    """Edges of a stricter grade are never taken for those of a wider one."""
    every = planted.circuit
    grade = pd.Categorical.from_codes(np.arange(len(every.edges)) % 2, categories=GRADES, ordered=True)
    told = every.provenance | {"grade": "sizeable"}
    graded = replace(every, edges=every.edges.assign(grade=grade), controls=every.controls.iloc[:0], provenance=told)
    graded.write(tmp_path / "circuit")
    run = Artefacts(tmp_path)
    assert len(run.circuit().edges) == len(every.edges) // 2
    assert len(run.circuit(grade="reproducible").edges) == len(every.edges)
    assert len(run.called("another").circuit(grade="reproducible").edges) == len(every.edges)
    with pytest.raises(ScircuitError, match="holds its sizeable edges alone; read it again with grade='reproducible'"):
        run.circuit().at("reproducible")
