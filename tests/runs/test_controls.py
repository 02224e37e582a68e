"""`scircuit controls`: whole runs where nothing was learnt, beside the run's own headlines."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json
from scircuit.analysis.controls import controls as ask_controls
from scircuit.analysis.registry import analyze
from scircuit.cli.app import app
from scircuit.config import SaeSection
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.report.page import write_report
from scircuit.runs import controls as module
from scircuit.runs.controls import CONTROLS, OWN, control_configs, controls
from scircuit.runs.run import Run
from scircuit.runs.verify import verify


@pytest.fixture
def config(finished: dict[str, Path], finished_copy: Path):
    return replace(load_config(finished["geneformer"] / "run.toml"), out=str(finished_copy))


def test_controls_go_on_and_stand_beside_the_run(config, monkeypatch, tmp_path):
    run_all, ran = module.run_all, []

    def interrupted(asked, **options):
        ran.append(asked.model.weights + asked.sae.freeze)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run_all(asked, **options)

    monkeypatch.setattr(module, "run_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        controls(config, n_steps=20)
    first = Path(config.out) / "controls" / "redrawn"
    written = (first / "circuit" / "run.json").stat().st_mtime_ns
    path = controls(config, n_steps=20)
    assert (first / "circuit" / "run.json").stat().st_mtime_ns == written
    table = pd.read_parquet(path)
    assert list(table["control"].unique()) == [OWN, *CONTROLS]
    assert table["number"].eq("reproducible edges per 1,000 tests").groupby(table["control"]).sum().eq(1).all()
    own = table[(table["control"] == OWN) & table["number"].str.startswith("reproducible")].iloc[0]
    record = Run(config.out).provenance()
    assert own["estimate"] == 1000 * record["grades"][0]["n_edges"] / record["n_tests"]
    shown = CliRunner().invoke(app, ["analyze", "controls", config.out])
    assert shown.exit_code == 0, shown.output
    page = write_report(tmp_path, [config.out]).read_text()
    assert "The run beside its controls" in page
    assert set(verify(config.out)["state"]) <= {"whole", "not listed"}


def test_each_control_is_a_run_of_its_own(config):
    asked = control_configs(config)
    assert {name: (c.model.weights, c.sae.freeze) for name, c in asked.items()} == CONTROLS
    assert len({c.out for c in asked.values()} | {config.out}) == len(CONTROLS) + 1
    assert all(c.trace == config.trace and c.cells == config.cells for c in asked.values())


def test_dictionaries_that_were_read_are_trained_as_they_were(config):
    trained = read_json(Path(config.out) / "saes" / "manifest.json")["metadata"]["training"]
    reading = replace(config, sae=SaeSection(path=str(Path(config.out) / "saes")))
    found = control_configs(reading)["redrawn"].sae
    assert found.path is None
    assert (found.k, found.n_steps, found.expansion) == (trained["k"], trained["n_steps"], trained["expansion"])
    assert found.layers == (0, 1, 2, 3)
    assert control_configs(reading, n_steps=7)["redrawn"].sae.n_steps == 7
    shipped = control_configs(replace(config, sae=SaeSection(path="geneformer-mini")))["frozen-encoder"].sae
    assert (shipped.n_steps, shipped.freeze) == (1000, "encoder")


def test_what_ends_early_is_filed_with_its_reason(config, monkeypatch):
    def refuse(*_, **__):
        raise ScircuitError("no latent is annotated")

    monkeypatch.setattr(module, "run_all", refuse)
    table = pd.read_parquet(controls(config))
    assert table.loc[table["control"] == "permuted", "refused"].tolist() == ["no latent is annotated"]
    with pytest.raises(ScircuitError, match="no latent is annotated"):
        analyze("controls", config.out)


def test_the_null_is_the_nearest_control():
    rows = [("this run", 10.0), ("redrawn", 2.0), ("permuted", 13.0), ("frozen-decoder", np.nan)]
    table = pd.DataFrame(rows, columns=["control", "estimate"])
    table = table.assign(number="specific edges", low=np.nan, high=np.nan, null=0.0, n=100, unit_of_n="tests")
    result = ask_controls(table.assign(refused=None))
    assert (result.estimate, result.null) == (10, 13)


def test_a_run_without_answers_is_refused(config, tmp_path):
    with pytest.raises(ScircuitError, match="has no analysis yet"):
        controls(replace(config, out=str(tmp_path / "new")))


def test_the_plan_writes_nothing(config):
    before = sorted(p.name for p in Path(config.out).iterdir())
    shown = CliRunner().invoke(app, ["controls", config.out, "--plan"])
    assert shown.exit_code == 0, shown.output
    assert "4 controls (redrawn, permuted, frozen-decoder, frozen-encoder)" in shown.output
    assert sorted(p.name for p in Path(config.out).iterdir()) == before


def test_where_no_latent_is_annotated_sources_are_drawn(config, monkeypatch):
    """An untrained model may have no annotated latent; its edges are asked all the same, and that is said."""
    config = replace(config, sources=replace(config.sources, rule="annotated", min_frequency=0.99))
    monkeypatch.setattr(module, "CONTROLS", {"redrawn": CONTROLS["redrawn"]})
    (asked,) = control_configs(config, n_steps=20).values()
    found = module._run(asked, None)
    assert found["refused"].str.contains("meets the source rule 'annotated'").any()
    assert found["number"].str.startswith("reproducible edges").any()
