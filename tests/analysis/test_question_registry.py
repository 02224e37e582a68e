import json
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from builders import behaviour_table
from scircuit.analysis.given import WITHOUT_DEFAULT, Sources
from scircuit.analysis.registry import ORDER, analyze, answerable, every_question, question, questions
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.seed_stability import match_dictionaries
from scircuit.circuits.artefacts import TABLES, Artefacts
from scircuit.circuits.schema import ENDS
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError
from scircuit.published.annotation_rule import PUBLISHED
from scircuit.published.profiles import profile
from scircuit.published.questions import DEFINITIONS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with every table any question needs."""
    root = tmp_path_factory.mktemp("run")
    planted = planted_circuit(n_latents=40, n_sources=20, term_affinity=0, seed=1)
    rng = np.random.default_rng(0)
    planted.circuit.write(root / "circuit")
    edges = planted.circuit.edges[ENDS]
    cells = edges.merge(pd.DataFrame({"cell": range(40)}), how="cross")
    first = cells.assign(delta=rng.normal(1, 1, len(cells)))
    group = planted.effects[planted.effects["kind"] == "latent"].assign(group_name="tissue")
    target = pd.DataFrame({"target_layer": 2, "target_feature": range(10)}).merge(
        pd.DataFrame({"cell": range(40)}), how="cross"
    )
    members = pd.DataFrame({"subset": [1, 2, 3]}).merge(target, how="cross")
    latent = {name: getattr(planted, name).query("kind == 'latent'") for name in ("effects", "tests")}
    both = {
        name: pd.concat([getattr(planted, name), rows.assign(kind="mean")], ignore_index=True).astype({"kind": str})
        for name, rows in latent.items()
    }
    tables = {
        "effects": both["effects"],
        "tests": both["tests"],
        "scales": pd.DataFrame(columns=["source_layer", "target_layer", "target_feature", "n_decoys"]),
        "groups": pd.concat([group.assign(group="lung"), group.assign(group="gut")]),
        "cell_effects": first,
        "source_cells": first[["source_layer", "source_feature", "cell"]].drop_duplicates(),
        "mediation": first.iloc[:600].assign(
            mediator_layer=1, mediator_feature=0, kind="mediator", delta_held=lambda t: t["delta"] / 2
        ),
        "interactions": members.assign(set_id=0, delta=rng.normal(0, 1, len(members))),
        "interaction_sets": pd.DataFrame({"set_id": 0, "member": [0, 1], "layer": 0, "feature": [1, 2], "n_cells": 40}),
        "faithfulness": behaviour_table(rng),
        "confirmation": edges.assign(
            n_cells=40,
            n_nonzero=30,
            cohens_d=rng.normal(-1, 1, len(edges)),
            p_value=rng.random(len(edges)) ** 3,
            discovery_d=rng.normal(-1, 1, len(edges)),
        ),
        "controls": pd.DataFrame(
            {
                "control": ["this run", "redrawn"],
                "number": "specific edges per 1,000 tests",
                "estimate": [9.0, 1.0],
                "low": np.nan,
                "high": np.nan,
                "null": 0.0,
                "n": 100,
                "unit_of_n": "tests",
                "refused": None,
            }
        ),
        "positive_control": edges.iloc[:12].assign(
            dose=[0.0] * 6 + [1.0] * 6, grade=[""] * 6 + ["specific"] * 6, strictest="specific", effect_sd=1.0
        ),
        "coactivation": edges.assign(n_both=150, pmi=1.0),
        "genes": planted.features[["layer", "feature"]].assign(gene="G", n_firings=9, mean_activation=1.0),
        "correlations": edges.assign(gene_r=rng.random(len(edges)), latent_r=rng.random(len(edges))),
    }
    assert set(tables) >= {need for q in questions().values() for need in q.needs} & set(TABLES)
    for name, table in tables.items():
        path = root / TABLES[name][0]
        path.parent.mkdir(exist_ok=True)
        table.to_parquet(path)
    planted.terms.assign(library="GO_BP").to_parquet(root / TABLES[PUBLISHED][0])
    labels = sorted(set(planted.circuit.nodes["label"]) - {""})
    sets = ["\t".join([label, "", *(f"G{g}" for g in range(i, i + 8))]) for i, label in enumerate(labels)]
    (root / "sets.gmt").write_text("\n".join(sets) + "\n")
    write_dictionaries(root / "saes", rng)
    return root


def write_dictionaries(folder, rng, fingerprint="m"):
    """Random dictionaries of four layers of 40 latents."""
    layers = {str(i): {"path": f"layer_{i:02d}"} for i in range(4)}
    for entry in layers.values():
        (folder / entry["path"]).mkdir(parents=True)
        weights = rng.standard_normal((40, 32)).astype("float32")
        save_file({"W_dec": weights}, folder / entry["path"] / "sae_weights.safetensors")
    record = {"model": {"fingerprint": fingerprint, "protocol": "official"}, "layers": layers}
    (folder / "manifest.json").write_text(json.dumps(record))


def with_whom(name, run):
    """The run itself stands for the second one; its gene sets are those of the labels."""
    second = {"second": run} if question(name).needs_second else {}
    return {"sources": Sources(sets=(str(run / "sets.gmt"),)), **second}


@pytest.fixture(scope="module")
def answer(run):
    """`answer(name)`: what a question answers about the run, asked once."""
    return cache(lambda name: analyze(name, run, **with_whom(name, run)))


ASKED = [name for name, q in questions().items() if not set(q.needs) & set(WITHOUT_DEFAULT)]


def test_a_full_run_answers_everything(run):
    assert answerable(Artefacts(run)) == [name for name in ASKED if not question(name).needs_second]


@pytest.mark.parametrize("name", ASKED)
def test_every_question_answers_and_is_written(answer, name, tmp_path):
    """Circuits are read with the declared edge columns only, so a missing one would fail here."""
    result = answer(name)
    assert result.question == name
    assert result.definition.count("/") == 1
    assert np.isfinite(result.estimate)
    assert set(result.measures.columns) == set(Measure._fields)
    assert result.measures["measure"].is_unique
    assert result.glossary
    assert result.null_model
    result.write(tmp_path, {"run_id": "r"})
    stored = json.loads((tmp_path / f"{name}.json").read_text())
    assert [row["measure"] for row in stored["measures"]] == result.measures["measure"].tolist()
    assert len(pd.read_parquet(tmp_path / f"{name}.parquet")) == len(result.table)
    words = json.loads(pq.read_schema(tmp_path / f"{name}.parquet").metadata[b"scircuit"])
    assert words["glossary"] == stored["glossary"] == result.glossary
    assert words["run_id"] == stored["run_id"] == "r"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_paper_profile_answers_what_was_published(run, name):
    result = profile("paper").analyze(name, Artefacts(run))
    assert result.question == name
    assert result.measures["measure"].is_unique
    assert result.definition.startswith("paper/")
    assert np.isfinite(result.estimate)


def test_refusals_name_the_way_out(run, tmp_path):
    with pytest.raises(ScircuitError, match="choose one of sign_balance"):
        analyze("signbalance", run)
    with pytest.raises(ScircuitError, match="scircuit trace"):
        analyze("hubs", tmp_path)
    with pytest.raises(ScircuitError, match="per-cell effects"):
        analyze("stability", tmp_path)
    with pytest.raises(ScircuitError, match="no published definition"):
        profile("paper").analyze("mediation", Artefacts(run))
    with pytest.raises(ScircuitError, match=r"the published annotations need .* run `scircuit features` first"):
        profile("paper").analyze("coherence", Artefacts(tmp_path))
    with pytest.raises(ScircuitError, match="name the other one"):
        analyze("seed_stability", run)
    with pytest.raises(
        ScircuitError, match="a second one serves robustness, selection, compare_effect_sizes, seed_stability"
    ):
        analyze("hubs", run, second=run)
    with pytest.raises(ScircuitError, match="no option 'n_draws'; it takes draws, seed"):
        analyze("hubs", run, n_draws=5)
    with pytest.raises(ScircuitError, match="take no options"):
        profile("paper").analyze("hubs", Artefacts(run), draws=5)
    assert answerable(Artefacts(tmp_path)) == []


def test_options_reach_the_question(run):
    few, many = (analyze("coherence", run, draws=draws) for draws in (20, 200))
    assert few["fold"].p_value >= 1 / 21
    assert many["fold"].p_value >= 1 / 201
    assert few["coherent_share"].estimate == many["coherent_share"].estimate


def test_the_rule_of_the_run_is_the_rule_of_its_questions(run, tmp_path):
    """Stability and the sweep judge edges as the run's circuit did, not by the default thresholds."""
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "circuit" / "run.json").read_text())
    record["thresholds"] |= {"min_abs_d": 1.5}
    (tmp_path / "run" / "circuit" / "run.json").write_text(json.dumps(record))
    assert analyze("threshold_sweep", tmp_path / "run").estimate < analyze("threshold_sweep", run).estimate


def test_a_run_agrees_with_itself(answer):
    assert answer("seed_stability")["jaccard"].estimate == 1
    assert answer("compare_effect_sizes")["difference"].estimate == pytest.approx(0, abs=0.1)


def test_dictionaries_of_other_models_are_not_matched(run, tmp_path):
    rng = np.random.default_rng(1)
    write_dictionaries(tmp_path / "other", rng, fingerprint="n")
    with pytest.raises(ScircuitError, match="different fingerprint"):
        match_dictionaries(run / "saes", tmp_path / "other")
    with pytest.raises(ScircuitError, match=r"manifest\.json does not exist"):
        match_dictionaries(run / "saes", tmp_path)


def test_nearest_directions_are_found_again(run, tmp_path):
    """A permuted copy of the dictionaries, rescaled and with a little noise."""
    rng = np.random.default_rng(2)
    write_dictionaries(tmp_path / "saes", rng)
    order = rng.permutation(40)
    for i in range(4):
        place = f"layer_{i:02d}/sae_weights.safetensors"
        weights = load_file(run / "saes" / place)["W_dec"]
        noisy = 3 * weights[order] + 0.01 * rng.standard_normal(weights.shape)
        save_file({"W_dec": noisy.astype("float32")}, tmp_path / "saes" / place)
    table = match_dictionaries(run / "saes", tmp_path / "saes")
    assert len(table) == 160
    assert (order[table["feature_second"]] == table["feature_first"]).all()
    assert (table["similarity"] > 0.99).all()
    own = load_file(run / "saes" / "layer_00/sae_weights.safetensors")["W_dec"]
    own = own / np.linalg.norm(own, axis=1, keepdims=True)
    nearest = (own @ own.T - 2 * np.eye(40)).max(axis=1)
    np.testing.assert_allclose(table.loc[table["layer"] == 0, "similarity_own"], nearest, atol=1e-6)


def test_a_result_gives_its_numbers_by_name():
    rows = [Measure("share", 0.5, 0.4, 0.6, 0.45, 0.01, 100), Measure("other", np.inf)]
    result = Result.of("q", "q/1", rows, pd.DataFrame({"x": [1]}), "nothing", ["d"])
    assert result.estimate == 0.5
    assert result.interval == (0.4, 0.6)
    assert result.null == 0.45
    assert result["share"] == rows[0]
    assert result.to_json()["measures"][1]["estimate"] is None
    with pytest.raises(ScircuitError, match="share, other"):
        result["shares"]
    with pytest.raises(AttributeError):
        result.question = "p"
    assert replace(result, question="p").question == "p"


def test_every_question_says_all_that_is_shown_of_it():
    assert list(every_question()) == list(ORDER)
    for name, asked in every_question().items():
        assert name == asked.name
        assert asked.asks.rstrip(".").endswith("?") or "?" in asked.asks
        assert asked.title
        assert asked.marks.endswith(".")


@pytest.mark.parametrize("name", ASKED)
def test_words_are_those_of_measures(answer, name):
    """A word for a number that no answer holds would be said of nothing."""
    made = set(answer(name).measures["measure"])
    conditional = {
        "joint_share_carried",
        "faithfulness_mean",
        "completeness_mean",
        "r_squared_corrected",
        "tail_exponent",
        "in_tail_exponent",
        "decay_length",
        "norm_ratio_3",
    }
    assert set(question(name).words) - conditional <= made


def test_disease_genes_must_be_given(run):
    with pytest.raises(ScircuitError, match="disease genes are missing"):
        analyze("disease", run, sources=Sources())
