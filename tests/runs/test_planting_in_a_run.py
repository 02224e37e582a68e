"""`scircuit positive-control`: planted in a finished run's own model, traced by its own rule."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit.analysis.registry import analyze
from scircuit.cli.app import app
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.runs import positive_control as module
from scircuit.runs.positive_control import positive_control


@pytest.fixture
def config(finished: dict[str, Path], finished_copy: Path):
    return replace(load_config(finished["geneformer"] / "run.toml"), out=str(finished_copy))


def test_it_goes_on_and_answers(config, monkeypatch):
    trace_setup, whole = module.trace_setup, []

    def interrupted(setup, out):
        whole.append((out / "trace.json").is_file())
        if len(whole) == 2:
            raise KeyboardInterrupt
        return trace_setup(setup, out)

    monkeypatch.setattr(module, "trace_setup", interrupted)
    with pytest.raises(KeyboardInterrupt):
        positive_control(config, doses=(2,), turns=2)
    table = pd.read_parquet(positive_control(config, doses=(2,), turns=2))
    assert whole == [False, False, True, False]
    assert set(table["turn"]) == {0, 1}
    assert set(table["grade"]) <= {"", "reproducible"}
    result = analyze("positive_control", config.out)
    assert result["recall_reproducible_2"].n >= 5


def test_the_command_answers_and_refuses(config):
    shown = CliRunner().invoke(app, ["positive-control", config.out, "--dose", "4", "--turns", "2"])
    assert shown.exit_code == 0, shown.output
    assert "positive_control: smallest_reproducible" in shown.output
    assert not list((Path(config.out) / "positive_control").glob("turn-*"))
    with pytest.raises(ScircuitError, match="give doses of at least 0"):
        positive_control(config, doses=())
    with pytest.raises(ScircuitError, match="holds no circuit"):
        positive_control(replace(config, out=config.out + "-new"))
