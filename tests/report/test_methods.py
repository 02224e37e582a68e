"""The methods paragraph says what the run records, and nothing that it did not do."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from scircuit import Circuit, ScircuitError
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.synthetic import planted_circuit
from scircuit.cli.app import app
from scircuit.report.methods import methods

OLD = Path(__file__).parents[1] / "data" / "run-0.1.0" / "out"


def test_numbers_are_those_of_the_run(tmp_path: Path) -> None:
    planted_circuit(seed=3).circuit.write(tmp_path / "circuit")
    text = methods(Artefacts(tmp_path))
    record = Circuit.read(tmp_path / "circuit").provenance
    for row in record["grades"]:
        assert f"{row['n_edges']:,} edges, {row['n_by_decoys']:,.0f} by held-out decoys" in text
    assert f"{record['n_tests']:,} times a later latent changed" in text
    assert "Benjamini and Hochberg" in text
    assert "trained for" not in text, "no dictionary is told of where none is recorded"


def test_a_run_of_the_first_version_is_told_by_its_record() -> None:
    text = methods(Artefacts(OLD))
    record = Artefacts(OLD).provenance()
    assert f"{record['config']['sae']['n_steps']:,} steps" in text
    assert "Gao et al." in text
    assert "found again" not in text.split("\n\n", maxsplit=1)[0] or "other cells" in text
    assert "None" not in text


def test_the_command_prints_it(tmp_path: Path) -> None:
    planted_circuit(seed=3).circuit.write(tmp_path / "circuit")
    said = CliRunner().invoke(app, ["methods", str(tmp_path)])
    assert said.output.strip() == methods(Artefacts(tmp_path))
    with pytest.raises(ScircuitError, match="holds no circuit"):
        methods(Artefacts(tmp_path / "none"))
