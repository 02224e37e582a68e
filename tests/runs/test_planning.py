"""`scircuit plan`, `--memory` and `--cluster` from the command line."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json
from scircuit.cli.app import app
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.runs.trace import plan


def command(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("model", ["geneformer", "scgpt"])
def test_the_plan_of_a_run_is_what_it_did(finished: dict[str, Path], model: str) -> None:
    folder = finished[model]
    found = read_json(folder / "out" / "trace" / "trace.json")
    planned = plan(load_config(folder / "run.toml"))
    assert planned.table["n_ablated"].sum() == found["n_ablated_forwards"] > 0
    assert planned.table["n_clean"].sum() == found["n_clean_forwards"] > 0
    output = command("plan", str(folder / "run.toml"))
    assert f"{found['n_ablated_forwards']:,}" in output
    assert "peak memory" in output


def copied(finished: dict[str, Path], out: Path, *, without: tuple[str, ...]) -> Path:
    """The finished run in another folder, some stages taken away; returns its config."""
    shutil.copytree(finished["geneformer"] / "out", out)
    for name in without:
        shutil.rmtree(out / name)
    return finished["geneformer"] / "run.toml"


def test_a_plan_needs_features_and_writes_nothing(finished: dict[str, Path], tmp_path: Path) -> None:
    config = copied(finished, tmp_path / "out", without=("trace", "features"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ScircuitError, match="has no features yet; run `scircuit features`"):
        plan(replace(load_config(config), out=str(tmp_path / "out")))
    assert sorted(tmp_path.rglob("*")) == before


def traced_again(finished: dict[str, Path], out: Path, *options: str) -> tuple[Path, Path]:
    config = copied(finished, out, without=("trace", "circuit", "analysis", "report"))
    command("trace", str(config), "--out", str(out), *options)
    return out, finished["geneformer"] / "out"


def test_a_memory_budget_finds_the_same(finished: dict[str, Path], tmp_path: Path) -> None:
    again, before = traced_again(finished, tmp_path / "out", "--memory", "1GB")
    counts = [read_json(f / "trace" / "trace.json")["n_ablated_forwards"] for f in (again, before)]
    assert counts[0] == counts[1] > 0
    ends = ["source_layer", "source_feature", "target_layer", "target_feature"]
    a, b = (pd.read_parquet(f / "circuit" / "edges.parquet").set_index(ends).index for f in (again, before))
    assert len(a.symmetric_difference(b)) <= 0.01 * len(b), "no more than rounding moves over a threshold"
    with pytest.raises(ScircuitError, match="no amount of memory"):
        traced_again(finished, tmp_path / "wrong", "--memory", "plenty")


@pytest.mark.slow
def test_workers_trace_the_same_circuit(finished: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    again, before = traced_again(finished, tmp_path / "out", "--cluster", "local:2")
    # To rounding only: a process in which other libraries were loaded first may use other kernels.
    ends = ["source_layer", "source_feature", "target_layer", "target_feature", "kind", "draw"]
    a, b = (pd.read_parquet(f / "trace" / "effects.parquet").set_index(ends)["mean_delta"] for f in (again, before))
    assert len(a.index.symmetric_difference(b.index)) <= 0.01 * len(b)
    shared = a.index.intersection(b.index)
    np.testing.assert_allclose(a[shared], b[shared], atol=1e-4)
