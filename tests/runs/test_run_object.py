"""`Run`: one noun for a finished run, in a folder of this version and of the first one."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from scircuit import Circuit, Run, ScircuitError
from scircuit.circuits.artefacts import TABLES
from scircuit.circuits.synthetic import planted_circuit
from scircuit.published.definitions import PAPER
from scircuit.runs.stages import run_stage

OLD = Path(__file__).parents[1] / "data" / "run-0.1.0"


@pytest.fixture(scope="module")
def folder(finished: dict[str, Path]) -> Path:
    return finished["geneformer"] / "out"


def test_all_of_a_run_is_had_from_its_folder(folder: Path) -> None:
    run = Run(folder)
    assert run.config.out == str(folder)
    assert run.name == run.config.name
    assert run.model_name == run.model().name
    assert sorted(run.saes()) == [0, 1, 2, 3]
    assert len(run.cells()) == 40
    setup = run.setup()
    assert setup.settings == run.config.trace
    assert sorted(setup.saes) == sorted(run.saes(setup.model))
    assert set(run.answers()["question"]) >= {"sign_balance", "hubs"}
    assert run.run_id == run.circuit().run_id == Circuit.read(folder / "circuit").run_id
    assert run.circuit() is run.circuit(), "read once"


def test_tables_are_those_of_the_folder(folder: Path) -> None:
    run = Run(folder)
    assert run.has("effects")
    pd.testing.assert_frame_equal(run.table("effects"), pd.read_parquet(folder / "trace" / "effects.parquet"))
    assert list(run.table("effects", ["n_cells"])) == ["n_cells"]
    assert not run.has("mediation")
    with pytest.raises(ScircuitError, match=r"mediation\.parquet is not there; run `scircuit mediate CONFIG`"):
        run.table("mediation")
    with pytest.raises(ScircuitError, match="no table 'effect'; it has effects, tests"):
        run.table("effect")
    assert all(place.endswith(".parquet") and how for place, how in TABLES.values())


def test_the_circuit_under_another_rule_is_the_one_built_from_the_trace(folder: Path) -> None:
    run = Run(folder)
    wide, narrow = (run.circuit(replace(run.rule(), min_abs_d=d)) for d in (0.4, 0.8))
    assert (narrow.edges["cohens_d"].abs() > 0.8).all()
    assert len(narrow.edges) < len(wide.edges)
    assert run.circuit(PAPER).provenance["thresholds"]["top_k"] == 50
    assert run.circuit(run.rule()).edges.equals(run.circuit().edges)


def test_a_run_shows_itself(folder: Path, tmp_path: Path) -> None:
    run = Run(folder)
    assert repr(run).startswith(f"Run({str(folder)!r}: tokens, saes, features, trace, circuit")
    assert f"Of {run.provenance()['n_tests']:,} tests" in run._repr_html_()
    planted_circuit(n_layers=3, n_latents=24, n_sources=4).circuit.write(tmp_path / "circuit")
    assert repr(Run(tmp_path)) == f"Run({str(tmp_path)!r}: circuit)"


def test_what_is_no_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScircuitError, match="holds no run"):
        Run(tmp_path / "nowhere")
    planted_circuit(n_layers=3, n_latents=24, n_sources=4).circuit.write(tmp_path / "circuit")
    run = Run(tmp_path)
    with pytest.raises(ScircuitError, match=r"config\.json does not exist"):
        _ = run.config
    with pytest.raises(ScircuitError, match="has no tokens yet; run `scircuit tokenize`"):
        run.cells()


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that version 0.1.0 made, as it left it."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return Run("out")


def test_a_run_of_the_first_version_opens_as_what_it_was(old: Run) -> None:
    assert old.config.trace.decoy == "random"
    assert old.config.edges.min_effect_sd is old.config.edges.max_q_specific is None
    assert old.rule() == old.config.edges
    assert "53 edges of 593 tests." in old._repr_html_()
    circuit = old.circuit()
    assert len(circuit.edges) == circuit.provenance["n_edges"] == 53
    assert set(circuit.provenance) >= {"thresholds", "cells", "sources"}
    again = old.circuit(old.rule()).edges
    pd.testing.assert_frame_equal(again[circuit.edges.columns], circuit.edges)
    assert len(old.cells()) == 40
    assert sorted(old.saes()) == [0, 1, 2, 3]


def test_a_run_of_the_first_version_is_asked_and_reported(old: Run) -> None:
    before = {path: path.read_bytes() for path in old.root.rglob("*") if path.is_file()}
    known = old.answers()
    assert old.ask("hubs", draws=20)["question"].nunique() == known["question"].nunique()
    run_stage(old.config, "report")
    changed = {path.relative_to(old.root) for path, content in before.items() if path.read_bytes() != content}
    assert {path.parts[0] for path in changed} == {"analysis"}
    assert "Sign balance" in (old.root / "report" / "index.html").read_text(encoding="utf-8")
