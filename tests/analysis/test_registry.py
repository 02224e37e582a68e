import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scircuit.analysis.registry import QUESTIONS, TABLES, analyze, answerable, question
from scircuit.analysis.result import GLOSSARY, Measure, Result
from scircuit.circuits.schema import ENDS
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError


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
    tables = {
        "effects": planted.effects,
        "tests": planted.tests,
        "groups": pd.concat([group.assign(group="lung"), group.assign(group="gut")]),
        "cell_effects": first,
        "source_cells": first[["source_layer", "source_feature", "cell"]].drop_duplicates(),
        "mediation": first.iloc[:600].assign(
            mediator_layer=1, mediator_feature=0, kind="mediator", delta_held=lambda t: t["delta"] / 2
        ),
        "interactions": members.assign(set_id=0, delta=rng.normal(0, 1, len(members))),
        "interaction_sets": pd.DataFrame({"set_id": 0, "member": [0, 1], "layer": 0, "feature": [1, 2], "n_cells": 40}),
        "confirmation": edges.assign(
            n_cells=40,
            n_nonzero=30,
            cohens_d=rng.normal(-1, 1, len(edges)),
            p_value=rng.random(len(edges)) ** 3,
            discovery_d=rng.normal(-1, 1, len(edges)),
        ),
        "coactivation": edges.assign(pmi=1.0),
        "correlations": edges.assign(gene_r=rng.random(len(edges)), latent_r=rng.random(len(edges))),
    }
    assert set(tables) == set(TABLES)
    for name, table in tables.items():
        path = root / TABLES[name][0]
        path.parent.mkdir(exist_ok=True)
        table.to_parquet(path)
    return root


def test_a_full_run_answers_everything(run):
    assert answerable(run) == list(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_answers_and_is_written(run, name, tmp_path):
    """Circuits are read with the declared edge columns only, so a missing one would fail here."""
    result = analyze(name, run)
    assert result.question == name
    assert result.definition.count("/") == 1
    assert np.isfinite(result.estimate)
    assert set(result.measures.columns) == set(Measure._fields)
    assert result.measures["measure"].is_unique
    assert any(sentence in result.glossary for sentence in GLOSSARY.values())
    assert result.null_model
    result.write(tmp_path)
    stored = json.loads((tmp_path / f"{name}.json").read_text())
    assert [row["measure"] for row in stored["measures"]] == result.measures["measure"].tolist()
    assert len(pd.read_parquet(tmp_path / f"{name}.parquet")) == len(result.table)


@pytest.mark.parametrize("name", [q.name for q in QUESTIONS.values() if q.published])
def test_the_paper_profile_answers_what_was_published(run, name):
    result = analyze(name, run, profile="paper")
    assert tuple(result.measures["measure"]) == question(name).published
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
        analyze("mediation", run, profile="paper")
    with pytest.raises(ScircuitError, match="no profile"):
        analyze("hubs", run, profile="draft")
    assert answerable(tmp_path) == []


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
