"""A study's file: what it becomes, and what it refuses in one sentence."""

import tomllib
from dataclasses import fields
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

from scircuit._io import write_json
from scircuit._settings import file_fields
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.build import build_circuit
from scircuit.circuits.synthetic import planted_circuit
from scircuit.cli.app import app
from scircuit.config import PROFILES, RunConfig
from scircuit.config_file import SECTIONS
from scircuit.errors import ScircuitError
from scircuit.published.counts import condition_numbers
from scircuit.published.numbers import CORRECTION, compare_numbers, published_numbers
from scircuit.study.config import (
    TEMPLATES,
    CompareSection,
    ControlsSection,
    DiseaseSection,
    PerturbationSection,
    load_study,
    parse_study,
    template,
)
from scircuit.study.plan import plan_study
from scircuit.study.stages import stages


def small(**changes):
    content = {
        "defaults": {"cells": {"path": "cells.h5ad"}, "sources": {"n": 5}, "trace": {"n_cells": 7}},
        "dictionaries": {
            "d": {"model": {"source": "geneformer-mini"}, "sae": {"layers": [0, 2, 4], "quality_cells": 9}}
        },
        "conditions": [{"name": "one", "dictionaries": "d"}],
    }
    return {**content, **changes}


def test_the_more_particular_value_wins():
    study = parse_study(
        small(
            seed=4,
            conditions=[
                {"name": "one", "dictionaries": "d"},
                {
                    "name": "two",
                    "dictionaries": "d",
                    "seed": 8,
                    "trace": {"n_cells": 9},
                    "cells": {"where": {"k": "a"}},
                },
            ],
        )
    )
    one, two = (c.run for c in study.conditions)
    assert (one.trace.n_cells, two.trace.n_cells) == (7, 9)
    assert (one.sources.n, two.sources.n) == (5, 5)
    assert (one.seed, two.seed, study.dictionaries[0].run.seed) == (4, 8, 4)
    assert one.model.source == two.model.source == "geneformer-mini"
    assert one.sae.path == str(study.out.absolute() / "dictionaries" / "d" / "saes")
    assert (one.sae.layers, one.sae.quality_cells) == ((0, 2, 4), 9)
    assert (one.cells.where, two.cells.where) == ({}, {"k": "a"})


def test_a_condition_on_other_cells_forgets_the_filters_of_its_dictionary():
    dictionaries = {"d": {"model": {"source": "geneformer-mini"}, "cells": {"where": {"line": "k562"}}}}
    conditions = [
        {"name": "same", "dictionaries": "d"},
        {"name": "other", "dictionaries": "d", "cells": {"path": "others.h5ad"}},
    ]
    same, other = parse_study(small(dictionaries=dictionaries, conditions=conditions)).conditions
    assert same.run.cells.where == {"line": "k562"}
    assert (other.run.cells.where, other.run.cells.path) == ({}, "others.h5ad")


def test_the_profile_reaches_every_run():
    study = parse_study(small(profile="paper"))
    assert study.conditions[0].run.edges.top_k == 50
    assert study.conditions[0].run.model.protocol == study.dictionaries[0].run.model.protocol == "paper"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dictionarys": {}}, "unknown key 'dictionarys'; did you mean 'dictionaries'"),
        ({"conditions": []}, "there is no condition"),
        ({"dictionaries": {}}, "there are no dictionaries"),
        ({"conditions": [{"name": "one", "dictionaries": "dd"}]}, "no dictionaries 'dd'; did you mean 'd'"),
        ({"conditions": [{"name": "one", "dictionaries": "d", "tracing": {}}]}, "did you mean 'trace'"),
        ({"conditions": [{"name": "one", "dictionaries": "d", "trace": {"n_cell": 3}}]}, "did you mean 'n_cells'"),
        ({"conditions": [{"name": "one", "dictionaries": "d", "sae": {"k": 3}}]}, "unknown key 'sae'"),
        ({"conditions": [{"name": "a/b", "dictionaries": "d"}]}, "names a folder"),
        ({"conditions": [{"dictionaries": "d"}]}, "name is missing"),
        ({"conditions": [{"name": "one", "dictionaries": "d"}] * 2}, "two conditions are called 'one'"),
        (
            {"conditions": [{"name": "one", "dictionaries": "d", "model": {"source": "scgpt-mini"}}]},
            "dictionaries 'd' are of a model with 'geneformer-mini'",
        ),
        (
            {"conditions": [{"name": "one", "dictionaries": "d", "sources": {"layers": [1]}}]},
            "sources.layers names 1; the dictionaries 'd' are of layers 0, 2, 4",
        ),
        ({"conditions": [{"name": "one", "dictionaries": "d", "published": "Z"}]}, "it may be A, B, T, G"),
        ({"profile": "papers"}, "profile = 'papers' is unknown"),
        ({"seed": "x"}, "seed = 'x' is of the wrong type"),
        ({"perturbation": {"conditions": ["two"]}}, "perturbation.conditions names 'two'; conditions are one"),
        ({"compare": {"min_models": 1}}, "must be at least 2"),
        ({"compare": {"drews": 1}}, "did you mean 'draws'"),
        ({"defaults": {"trace": 3}}, "trace must be a table"),
        ({"defaults": {"sae": {"path": "x"}}}, "they are trained here"),
    ],
)
def test_wrong_values_are_refused_with_what_is_allowed(changes, message):
    with pytest.raises(ScircuitError, match=message.replace("(", r"\(")):
        parse_study(small(**changes))


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_studies(name):
    study = parse_study(tomllib.loads(template(name)))
    assert len(study.conditions) == 4
    assert len(study.groups) == 2


def test_the_published_conditions():
    study = parse_study(tomllib.loads(template("paper")))
    found = {c.published: c.run for c in study.conditions}
    assert {key: run.sources.layers for key, run in found.items()} == {
        "A": (0, 5, 11, 15), "B": (0, 5, 11), "T": (0, 5, 11), "G": (0, 4, 8),
    }  # fmt: skip
    assert all((run.sources.n, run.trace.n_cells, run.seed) == (30, 200, 42) for run in found.values())
    assert all((run.edges.min_abs_d, run.edges.min_consistency) == (0.5, 0.7) for run in found.values())
    trained = {d.name: d.run.sae for d in study.dictionaries}
    assert all((sae.k, sae.expansion) == (32, 4) for sae in trained.values())
    assert trained["multi"].layers == (0, 5, 11, 17)
    assert [(part.name, part.weight) for part in trained["multi"].mix] == [("k562", 0.5), ("tabula", 0.5)]
    assert found["A"].model.source == "geneformer-v2-316m"
    assert found["G"].model.source == "scgpt-whole-human"
    published = parse_study({**tomllib.loads(template("paper")), "profile": "paper"})
    assert {c.run.edges.consistency for c in published.conditions} == {"zero_as_negative"}
    assert {c.run.model.protocol for c in published.conditions} == {"paper"}
    for section, values in PROFILES["paper"].items():
        for key, value in values.items():
            found = {getattr(getattr(c.run, section), key) for c in published.conditions}
            assert found == {value}, f"the file must leave {section}.{key} to the profile"


def test_own_template_explains_every_setting():
    text = template("own")
    for name in SECTIONS:
        assert f"[{name}]" in text
        for setting in file_fields(type(getattr(RunConfig(), name))):
            assert f"# {setting.name} = " in text, f"{name}.{setting.name}"
    for section in (CompareSection, ControlsSection, DiseaseSection, PerturbationSection):
        for setting in fields(section):
            assert f"{setting.name} = " in text, f"{section.__name__}.{setting.name}"


def test_every_published_number_has_a_source_and_two_definitions():
    numbers = published_numbers()
    assert len({n.id for n in numbers}) == len(numbers)
    for number in numbers:
        assert all((number.source, number.definition, number.corrected))
        assert number.paper or number.default or number.id == "hours" or "ours is not computed: " in number.corrected
        assert set(number.published) <= {"A", "B", "T", "G", "all"}
        assert number.unit in ("count", "number", "share", "fold", "d", "p")
        if number.unit == "share":
            assert all(0 <= value <= 1 for value in number.published.values())
    known = {n.id: n.published for n in numbers}
    assert known["edges"] == {"A": 52116, "B": 8298, "T": 5098, "G": 31380, "all": 96892}
    assert sum(known["edges"][c] for c in "ABTG") == known["edges"]["all"]
    assert sum(known["passes"][c] for c in "ABTG") == known["passes"]["all"]
    later = {n.id: n.author for n in numbers if n.author}
    assert all(set(values) <= {"deployed", "mended"} and values for values in later.values())
    assert later["edges"] == {"deployed": 2144011, "mended": 318387}
    assert later["supporting_share"] == {"deployed": 0.882, "mended": 0.579}
    assert all(n.published or n.author or n.paper or n.default for n in numbers)


def test_what_the_author_reported_later_stands_in_rows_of_its_own(tmp_path: Path):
    table = compare_numbers(tmp_path, {"mine": "A"}).set_index(["number", "scope"])
    row = table.loc[("edges", CORRECTION)]
    assert (row["published"], row["mended"]) == (2144011, 318387)
    assert np.isnan(table.loc[("edges", "mine"), "mended"])
    assert table.loc[("edges", "mine"), "published"] == 52116
    assert table.loc[("edges", "study"), "published"] == 96892
    assert table.loc[("edges_of_no_edit", CORRECTION), "published"] == 71474
    assert ("edges_of_no_edit", "study") not in table.index
    assert table.loc[("crispri_sign", CORRECTION), "mended"] == 0.503


def test_controls_are_a_stage_of_the_conditions_that_ask_for_them(tmp_path: Path, monkeypatch):
    text = template("own").replace("[controls]\nconditions = []", '[controls]\nconditions = ["lymphoid-lymphoid"]')
    (tmp_path / "study.toml").write_text(text)
    study = load_study(tmp_path / "study.toml")
    names = {stage.name: stage for stage in stages(study)}
    assert [name for name in names if name.startswith("controls:")] == ["controls:lymphoid-lymphoid"]
    assert names["controls:lymphoid-lymphoid"].needs == ("analysis:lymphoid-lymphoid",)
    assert "controls:lymphoid-lymphoid" in names["report"].needs
    planned = plan_study(study).stages.set_index("stage")["seconds"]
    assert planned["controls:lymphoid-lymphoid"] > planned["trace:lymphoid-lymphoid"]
    asked = []
    monkeypatch.setattr("scircuit.runs.controls.controls", lambda config, cluster: asked.append((config.name, cluster)))
    names["controls:lymphoid-lymphoid"].run("local")  # without a circuit there is no answer, which ends nothing
    assert asked == [("lymphoid-lymphoid", "local")]
    (tmp_path / "study.toml").write_text(text.replace('["lymphoid-lymphoid"]', '["other"]'))
    with pytest.raises(ScircuitError, match=r"controls\.conditions names 'other'"):
        load_study(tmp_path / "study.toml")


def command(*words):
    return CliRunner().invoke(app, list(words))


def test_init_writes_and_never_overwrites(tmp_path: Path):
    assert command("study", "init", str(tmp_path / "mine.toml")).exit_code == 0
    assert command("study", "init", "paper", str(tmp_path / "paper.toml")).exit_code == 0
    assert load_study(tmp_path / "mine.toml").out == tmp_path / "study"
    assert load_study(tmp_path / "paper.toml").conditions[0].published == "A"
    again = command("study", "init", str(tmp_path / "mine.toml"))
    assert isinstance(again.exception, ScircuitError)
    assert "exists already" in str(again.exception)


def test_a_missing_file_is_named_with_what_brings_it_and_nothing_is_written(tmp_path: Path):
    command("study", "init", "paper", str(tmp_path / "paper.toml"))
    result = command("study", "run", str(tmp_path / "paper.toml"))
    assert isinstance(result.exception, ScircuitError)
    assert "scircuit models fetch geneformer-v2-316m" in str(result.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["paper.toml"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    command("study", "init", str(tmp_path / "mine.toml"))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.txt").write_text("mine")
    result = command("study", "run", str(tmp_path / "mine.toml"))
    assert "no scircuit study" in str(result.exception)
    result = command("study", "status", str(tmp_path / "nowhere.toml"))
    assert "scircuit study init" in str(result.exception)


def test_numbers_of_a_circuit_without_edges(tmp_path: Path):
    planted = planted_circuit(n_layers=3, n_latents=24, n_sources=3, n_cells=20, edge_share=0.0)
    (tmp_path / "trace").mkdir(parents=True)
    nothing = planted.effects.iloc[:0]
    circuit = build_circuit(nothing, planted.tests, planted.features, planted.terms, provenance={"n_cells": 20})
    assert circuit.edges.empty
    circuit.write(tmp_path / "circuit")
    nothing.to_parquet(tmp_path / "trace" / "effects.parquet")
    planted.tests.to_parquet(tmp_path / "trace" / "tests.parquet")
    write_json(tmp_path / "trace" / "trace.json", {"n_clean_forwards": 40, "n_ablated_forwards": 120})
    found = condition_numbers(Artefacts(tmp_path)).set_index(["id", "profile"])["estimate"]
    assert found["edges", "default"] == found["edges", "paper"] == found["targets", "default"] == 0
    assert found["passes", "paper"] == 2 * 20 + 6 * 20
    assert np.isnan(found["mean_abs_d", "default"])


def test_numbers_of_a_planted_circuit(tmp_path: Path):
    planted = planted_circuit(n_layers=3, n_latents=48, n_sources=6, n_cells=30)
    circuit = planted.circuit
    circuit.provenance["n_cells"] = 30
    circuit.write(tmp_path / "circuit")
    (tmp_path / "trace").mkdir()
    planted.effects.to_parquet(tmp_path / "trace" / "effects.parquet")
    planted.tests.to_parquet(tmp_path / "trace" / "tests.parquet")
    write_json(tmp_path / "trace" / "trace.json", {"n_clean_forwards": 60, "n_ablated_forwards": 1080})
    found = condition_numbers(Artefacts(tmp_path)).set_index(["id", "profile"])
    edges = circuit.edges
    assert found.loc[("edges", "default"), "estimate"] == len(edges)
    assert found.loc[("edges", "default"), "null"] == len(circuit.controls) / 2, "of one random direction of two"
    assert found.loc[("abs_d_above_2", "default"), "estimate"] == (edges["cohens_d"].abs() > 2).mean()
    from_first = edges[edges["source_layer"] == 0]
    assert found.loc[("edges_from_L0", "default"), "estimate"] == len(from_first)
    assert found.loc[("edges_per_source_L0", "default"), "estimate"] == len(from_first) / 6
    to_last = from_first[from_first["target_layer"] == 2]
    assert found.loc[("density_L0_L2", "default"), "estimate"] == pytest.approx(len(to_last) / 6)
    out_degree = edges.groupby(["source_layer", "source_feature"]).size()
    assert found.loc[("largest_out_degree", "default"), "estimate"] == out_degree.max()
    capped = found.loc[("edges", "paper"), "estimate"]
    assert capped <= found.loc[("edges_uncapped", "paper"), "estimate"]
    assert capped <= 6 * 3 * 50


def test_a_model_of_ones_own_is_planned_as_far_as_it_can_be(tmp_path: Path):
    (tmp_path / "mine.py").write_text("def load(**options): ...\n")
    study = parse_study(
        small(dictionaries={"d": {"model": {"source": str(tmp_path / "mine.py") + ":load"}}}), folder=tmp_path
    )
    plan = plan_study(study)
    seconds = plan.stages.set_index("stage")["seconds"]
    assert seconds[["dictionary:d", "tokens:one", "features:one", "trace:one"]].isna().all()
    assert seconds["report"] > 0
    assert any("nothing of d" in text for text in plan.assumptions)
    (missing,) = [need for need in plan.needs if not need.present]
    assert (missing.kind, missing.name) == ("cells", "cells.h5ad")
    assert "unknown" in "\n".join(plan.lines())


@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning")
def test_cells_in_a_folder_are_there(tmp_path: Path):
    pytest.importorskip("zarr")
    (tmp_path / "mine.py").write_text("def load(**options): ...\n")
    ad.AnnData(np.ones((60, 5), np.float32)).write_zarr(tmp_path / "cells.zarr")
    dictionaries = {"d": {"model": {"source": str(tmp_path / "mine.py") + ":load"}}}
    content = small(dictionaries=dictionaries)
    content["defaults"]["cells"]["path"] = "cells.zarr"
    plan = plan_study(parse_study(content, folder=tmp_path))
    assert [(need.present, need.bytes > 0) for need in plan.needs if need.kind == "cells"] == [(True, True)]
    assert not any("is not here and has no n" in text for text in plan.assumptions)
