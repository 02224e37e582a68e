"""Whole runs on tiny models: artefacts, provenance, resuming, single stages, foreign folders."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from scircuit._io import read_json
from scircuit.circuits.circuit import Circuit
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.runs.demo import demo_config
from scircuit.runs.stages import NEEDS, run, run_stage

ARTEFACTS = {
    "tokens": ("tokens.safetensors", "cells.parquet", "tokens.json"),
    "saes": ("manifest.json", "layer_00/cfg.json", "layer_00/sae_weights.safetensors"),
    "features": ("features.parquet", "genes.parquet", "background.parquet", "cells.parquet", "obs.parquet",
                 "terms.parquet", "features.json", "labels.json"),
    "trace": ("effects.parquet", "tests.parquet", "cell_effects.parquet", "groups.parquet", "trace.json"),
    "circuit": ("edges.parquet", "nodes.parquet", "tests.parquet", "controls.parquet", "sources.parquet",
                "terms.parquet", "run.json"),
    "analysis": ("answers.parquet", "sign_balance.json", "sign_balance.parquet"),
    "report": ("index.html",),
}  # fmt: skip
HASH = re.compile("[0-9a-f]{64}")


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time and content."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("model", ["geneformer", "scgpt"])
def test_every_artefact_is_there(finished: dict[str, Path], model: str) -> None:
    out = finished[model] / "out"
    for stage, names in ARTEFACTS.items():
        for name in names:
            assert (out / stage / name).stat().st_size > 0, f"{stage}/{name}"
    assert not list(out.rglob("*.tmp"))
    assert not (out / "trace" / "parts").exists()


@pytest.mark.parametrize(("model", "n_layers"), [("geneformer", 4), ("scgpt", 3)])
def test_run_json_says_everything(finished: dict[str, Path], model: str, n_layers: int) -> None:
    out = finished[model] / "out"
    record = read_json(out / "circuit" / "run.json")
    assert record["format_version"] == 1
    for value in (record["model"]["fingerprint"], record["saes"], record["cells"]):
        assert HASH.fullmatch(value)
    assert (record["model"]["n_layers"], record["model"]["protocol"]) == (n_layers, "official")
    assert (record["precision"], record["seed"], record["retention"]) == ("float32", 3, 0.05)
    assert record["config"]["sae"]["n_steps"] == 40
    assert {"scircuit", "torch", "numpy", "python"} <= set(record["versions"])
    assert record["hardware"]["cores"] >= 1
    assert record["hardware"]["cpu"]
    assert record["seconds"] > 0
    assert record["n_cells"] == 12
    tests = pd.read_parquet(out / "circuit" / "tests.parquet")
    assert record["n_tests"] == tests.loc[tests["kind"] == "latent", "n_tests"].sum() > 0
    assert record["n_ablated_forwards"] > record["n_clean_forwards"] > 0


def test_found_edges_meet_the_rule(finished: dict[str, Path]) -> None:
    for folder in finished.values():
        edges = Circuit.read(folder / "out" / "circuit").edges
        assert len(edges) > 0
        assert (edges["cohens_d"].abs() > 0.4).all()
        assert (edges["n_nonzero"] >= 5).all()
        assert (edges["target_layer"] > edges["source_layer"]).all()


def test_traced_cells_are_not_those_of_training(finished: dict[str, Path]) -> None:
    split = pd.read_parquet(finished["scgpt"] / "out" / "tokens" / "cells.parquet")["_split"]
    assert split.value_counts().to_dict() == {"train": 12, "catalogue": 8, "discovery": 12, "confirmation": 8}


def test_volatile_facts_do_not_decide_the_run_id(finished: dict[str, Path]) -> None:
    circuit = Circuit.read(finished["scgpt"] / "out" / "circuit")
    changed = {"seconds": 1e6, "hardware": {"cpu": "another"}, "versions": {}}
    assert replace(circuit, provenance={**circuit.provenance, **changed}).run_id == circuit.run_id
    assert replace(circuit, provenance={**circuit.provenance, "seed": 4}).run_id != circuit.run_id


def test_resuming_does_nothing_twice(finished: dict[str, Path]) -> None:
    out = finished["scgpt"] / "out"
    before = {k: v for k, v in state(out).items() if not k.startswith("report")}
    run(load_config(finished["scgpt"] / "run.toml"))
    assert {k: v for k, v in state(out).items() if not k.startswith("report")} == before


def test_stages_one_by_one_give_the_same_tables(finished: dict[str, Path], tmp_path: Path) -> None:
    config = replace(load_config(finished["geneformer"] / "run.toml"), out=str(tmp_path / "out"))
    for stage in NEEDS:
        run_stage(config, stage)
    whole, single = finished["geneformer"] / "out", tmp_path / "out"
    tables = sorted(str(p.relative_to(whole)) for p in whole.rglob("*.parquet"))
    assert tables == sorted(str(p.relative_to(single)) for p in single.rglob("*.parquet"))
    for name in tables:
        pd.testing.assert_frame_equal(pd.read_parquet(whole / name), pd.read_parquet(single / name), obj=name)
    assert Circuit.read(whole / "circuit").run_id == Circuit.read(single / "circuit").run_id


@pytest.mark.parametrize(
    ("stage", "first"),
    [("train-sae", "tokenize"), ("features", "tokenize"), ("trace", "tokenize"), ("report", "trace")],
)
def test_stage_without_its_predecessor_names_the_command(
    finished: dict[str, Path], tmp_path: Path, stage: str, first: str
) -> None:
    config = replace(load_config(finished["scgpt"] / "run.toml"), out=str(tmp_path / "new"))
    with pytest.raises(ScircuitError, match=f"run `scircuit {first}` with the same config first"):
        run_stage(config, stage)
    assert not (tmp_path / "new").exists()


def test_interrupted_run_goes_on(finished: dict[str, Path], tmp_path: Path) -> None:
    config = replace(load_config(finished["scgpt"] / "run.toml"), out=str(tmp_path / "out"))
    run(config, until="features")
    run(config, until="trace")
    ours = Circuit.read(tmp_path / "out" / "circuit").edges
    pd.testing.assert_frame_equal(ours, Circuit.read(finished["scgpt"] / "out" / "circuit").edges)


def test_folder_of_another_run_is_left_alone(finished: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished["scgpt"] / "out", out)
    before = state(out)
    config = replace(load_config(finished["scgpt"] / "run.toml"), out=str(out), seed=4)
    with pytest.raises(ScircuitError, match=r"holds a different run \(seed is 3 there, 4 was asked\)"):
        run(config)
    assert state(out) == before


def test_foreign_folder_is_left_alone(finished: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    config = replace(load_config(finished["scgpt"] / "run.toml"), out=str(tmp_path))
    with pytest.raises(ScircuitError, match="is no scircuit run"):
        run(config)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_memory_may_change_between_calls(finished: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished["scgpt"] / "out", out)
    config = load_config(finished["scgpt"] / "run.toml")
    config = replace(config, out=str(out), trace=replace(config.trace, tokens=512))
    assert run(config, until="features").root == out


@pytest.mark.slow
def test_the_demonstration_trains_where_it_is_asked_to(tmp_path: Path) -> None:
    folder = run(demo_config("geneformer-mini", tmp_path, train=True), until="train-sae")
    shipped = demo_config("geneformer-mini", tmp_path)
    assert (folder.config.sae.path, shipped.sae.path) == (None, "geneformer-mini")
    for layer, sae in folder.saes().items():
        assert sae.config.layer == layer
        assert sae.config.metadata["training"]["n_steps"] == 200


def test_a_run_is_named_by_its_folder_too(finished_copy: Path) -> None:
    from typer.testing import CliRunner

    from scircuit.cli.app import app

    (finished_copy / "report" / "index.html").unlink()
    done = CliRunner().invoke(app, ["report", str(finished_copy)])
    assert done.exit_code == 0, done.output
    assert (finished_copy / "report" / "index.html").is_file()
