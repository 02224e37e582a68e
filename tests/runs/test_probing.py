"""`scircuit probe`, `scircuit paths`, further interventions of a trace, and `--accept-approximation`."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json
from scircuit.cells.tokens import TokenStore
from scircuit.cli.app import app
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.runs.inputs import open_model, open_saes
from scircuit.runs.probe import parse_latents, probe_run
from scircuit.runs.stages import run
from scircuit.runs.tokens import traced_cells
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.menu import parse_words
from scircuit.tracing.probes.readouts import readout
from scircuit.tracing.setup import Setup

ENDS = ["source_layer", "source_feature", "target_layer", "target_feature"]


def command(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def some_sources(folder: Path) -> list[int]:
    tests = pd.read_parquet(folder / "out" / "trace" / "tests.parquet")
    return sorted(tests.loc[tests["source_layer"] == 0, "source_feature"].unique().tolist())[:2]


@pytest.mark.parametrize(
    ("what", "where"), [("activation", "other"), ("pre_activation", "active"), ("logits", "all"), ("embedding", "all")]
)
def test_every_readout_is_reached(finished: dict[str, Path], tmp_path: Path, what: str, where: str) -> None:
    folder = finished["geneformer"]
    one, two = some_sources(folder)
    file = tmp_path / "probe.parquet"
    command(
        "probe", str(folder / "run.toml"), f"0:{one}", f"0:{one}+{two}", "--do", "scale:2", "--do", "scale:0.5",
        "--what", what, "--where", where, "--cells", "6", "--table", str(file),
    )  # fmt: skip
    table = pd.read_parquet(file)
    assert set(table["value"]) == {2.0, 0.5}
    assert set(table["source"]) == {str(one), f"{one}+{two}"}
    assert set(table["where"]) == {where}
    config = load_config(folder / "run.toml")
    model = open_model(config)
    saes = open_saes(folder / "out" / "saes", model)
    store = traced_cells(TokenStore.read(folder / "out" / "tokens"), config)
    layers = [3] if what in ("logits", "embedding") else [1, 2, 3]
    deltas: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    for cell in range(6):
        clean = clean_batch(model, saes[0], store.batch(np.array([cell])), 0)
        jobs = make_jobs(clean, saes[0], [Intervention((one,), "scale", value=2.0)])
        for r in readout(Setup(model, saes, store), clean, jobs, [1, 2, 3], where=where, what=what) if jobs else ():
            deltas[r.layer].append(r.delta[0].numpy())
    mine = table[(table["source"] == str(one)) & (table["value"] == 2.0)]
    for layer, seen in deltas.items():
        rows = mine[mine["target_layer"] == layer]
        expected = np.stack(seen)
        assert (rows["n_cells"] == len(seen)).all()
        assert rows["target"].tolist() == np.flatnonzero((expected != 0).any(axis=0)).tolist()
        np.testing.assert_allclose(rows["mean_delta"], expected.mean(axis=0)[rows["target"]], rtol=1e-3, atol=1e-6)
    if what == "logits":
        assert table["gene"].str.startswith("GENE").any()


def test_paths_of_the_edges(finished: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(finished["scgpt"] / "out", tmp_path / "out")
    path = command("paths", str(finished["scgpt"] / "run.toml"), "--out", str(tmp_path / "out")).strip()
    table = pd.read_parquet(path)
    edges = pd.read_parquet(tmp_path / "out" / "circuit" / "edges.parquet")
    both = edges.merge(table, on=ENDS, suffixes=("", "_again"), validate="one_to_one")
    assert len(both) == len(edges) == len(table) > 0
    np.testing.assert_allclose(both["mean_delta_again"], both["mean_delta"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(both["local_delta"] + both["context_delta"], both["mean_delta_again"], atol=1e-9)


def local(text: str) -> str:
    return text.replace(
        "[trace]",
        '[trace]\ninterventions = ["mean", "scale:2", "matched"]\npath_shares = true\nengine = "local"\n'
        "context_rows = 0.0\nmin_sign = 1.0\ncheck_sources = 4\ncheck_cells = 16",
    )


def test_below_the_floors_a_run_is_refused_until_it_is_accepted(project, geneformer_folder: Path) -> None:
    folder = project(geneformer_folder, edit=local)
    config = load_config(folder / "run.toml")
    with pytest.raises(ScircuitError, match="--accept-approximation"):
        run(config, until="trace")
    assert not (folder / "out" / "trace" / "trace.json").exists()
    command("run", str(folder / "run.toml"), "--accept-approximation")
    record = read_json(folder / "out" / "circuit" / "run.json")
    assert record["fidelity"]["passed"] is False
    assert record["settings"]["accept_approximation"] is True
    page = (folder / "out" / "report" / "index.html").read_text()
    assert "Agreement with exact measurement" in page
    assert "NOT met" in page
    effects = pd.read_parquet(folder / "out" / "trace" / "effects.parquet")
    assert {"latent", "radial", "mean", "scale", "matched"} <= set(effects["kind"])
    assert (folder / "out" / "trace" / "path_shares.parquet").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mean:2"], "takes no number"),
        (["scale"], "needs a number"),
        (["scale:two"], "needs a number after the colon"),
        (["matched:0"], "at least 1"),
        (["kill"], "is unknown"),
        (["mean", "mean"], "twice"),
        (["matched", "matched:2"], "twice"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ScircuitError, match=message):
        parse_words(words)


def test_wrong_latents_are_refused(finished: dict[str, Path]) -> None:
    assert parse_latents("3:17+40") == (3, (17, 40))
    config = load_config(finished["geneformer"] / "run.toml")
    for latents, words, message in (
        (["17"], ["zero"], "LAYER:LATENT"),
        (["9:1"], ["zero"], "Layer 9 has no dictionary"),
        (["0:9999"], ["zero"], "has no latent 9999"),
        (["0:1+2"], ["resample"], "one latent at a time"),
    ):
        with pytest.raises(ScircuitError, match=message):
            probe_run(config, latents, words, n_cells=4)
    wrong = replace(config, trace=replace(config.trace, interventions=("zero",)), out=str(finished["geneformer"] / "x"))
    with pytest.raises(ScircuitError, match="traced anyway"):
        run(wrong, until="trace")
