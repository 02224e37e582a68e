"""`scircuit mediate` and `scircuit combine`: what single questions need beyond a trace, from a finished run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json
from scircuit.analysis.registry import analyze
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS
from scircuit.cli.app import app
from scircuit.config import RunConfig
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.runs.causes import combine, mediate, sets_with_a_common_target


@pytest.fixture
def config(finished: dict[str, Path], tmp_path: Path) -> RunConfig:
    """A finished run in a folder of its own."""
    shutil.copytree(finished["geneformer"] / "out", tmp_path / "out")
    return replace(load_config(finished["geneformer"] / "run.toml"), out=str(tmp_path / "out"))


def far(config: RunConfig) -> pd.DataFrame:
    edges = Circuit.read(Path(config.out) / "circuit").edges
    return edges[edges["target_layer"] - edges["source_layer"] > 1]


def test_mediate_writes_what_the_question_reads(config: RunConfig) -> None:
    path = mediate(config, n_edges=3, top=2, n_cells=4)
    table = pd.read_parquet(path)
    assert len(table[ENDS].drop_duplicates()) <= 3
    assert {"mediator", "random", "joint"} >= set(table["kind"])
    assert "random" in set(table["kind"])
    record = read_json(path.with_suffix(".json"))
    assert record["n_cells"] == 4
    assert record["n_new_cells"] == 4  # those kept for confirmation come first
    result = analyze("mediation", config.out)
    assert np.isfinite(result.estimate)
    pd.testing.assert_frame_equal(pd.read_parquet(mediate(config, n_edges=3, top=2, n_cells=4)), table)


def test_a_named_edge_is_the_one_that_is_mediated(config: RunConfig) -> None:
    table = pd.read_parquet(mediate(config, n_edges=1, top=1, n_cells=2))
    ends = table[ENDS].iloc[0].tolist()
    named = pd.read_parquet(mediate(config, ["{}:{}-{}:{}".format(*ends)], top=1, n_cells=2))
    assert named[ENDS].drop_duplicates().to_numpy().tolist() == [ends]


def test_combine_writes_what_the_question_reads(config: RunConfig) -> None:
    path = combine(config, n_sets=2, size=2, n_cells=4)
    sets = pd.read_parquet(path.parent / "interaction_sets.parquet")
    assert sets.groupby("set_id").size().tolist() == [2, 2]
    edges = Circuit.read(Path(config.out) / "circuit").edges
    for _, members in sets.groupby("set_id"):
        targets = [
            set(map(tuple, edges.loc[(edges[ENDS[:2]] == list(m)).all(axis=1), ENDS[2:]].to_numpy().tolist()))
            for m in members[["layer", "feature"]].itertuples(index=False, name=None)
        ]
        assert set.intersection(*targets)
    assert np.isfinite(analyze("interactions", config.out)["norm_ratio_2"].estimate)


def test_sets_are_drawn_alike_and_differ(config: RunConfig) -> None:
    circuit = Circuit.read(Path(config.out) / "circuit")
    first, again = (sets_with_a_common_target(circuit, 4, 2, 7) for _ in range(2))
    assert first == again
    assert len({tuple(s) for s in first}) == len(first)
    with pytest.raises(ScircuitError, match="no target has 100 sources"):
        sets_with_a_common_target(circuit, 4, 100, 7)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mediate", "--edge", "0:1"], "is no edge; write layer:latent-layer:latent"),
        (["mediate", "--edge", "0:1-x"], "is no latent"),
        (["mediate", "--edge", "0:99999-3:1"], "the circuit has no edge 0:99999-3:1"),
        (["combine", "--set", "0-1"], "is no latent"),
        (["combine", "--set", "0:1"], "at least two different"),
    ],
)
def test_wrong_edges_and_sets(finished: dict[str, Path], config: RunConfig, arguments: list[str], says: str) -> None:
    name, *rest = arguments
    toml = str(finished["geneformer"] / "run.toml")
    result = CliRunner().invoke(app, [name, toml, "--out", config.out, *rest])
    assert isinstance(result.exception, ScircuitError)
    assert says in str(result.exception)


def test_commands_answer_at_once(finished: dict[str, Path], config: RunConfig) -> None:
    toml, edge = str(finished["geneformer"] / "run.toml"), far(config)
    assert len(edge)
    shown = CliRunner().invoke(app, ["mediate", toml, "--out", config.out, "--n-edges", "3", "--n-cells", "12"])
    assert shown.exit_code == 0, shown.output
    assert "mediation: share_carried" in shown.output
    assert "mediator: a latent between" in shown.output
    shown = CliRunner().invoke(
        app, ["combine", toml, "--out", config.out, "--n-sets", "1", "--size", "2", "--n-cells", "2"]
    )
    assert shown.exit_code == 0, shown.output
    assert "interactions: norm_ratio_2" in shown.output
    assert (Path(config.out) / "analysis" / "interactions.json").is_file()
