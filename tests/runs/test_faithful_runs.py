"""`scircuit faithfulness`: from a finished run to the answers, in cells that had no part in finding the circuit."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json, write_json
from scircuit.analysis.registry import analyze
from scircuit.circuits.variants import COLUMNS, ORDERS
from scircuit.cli.app import app
from scircuit.config import RunConfig
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.runs.attribution import means_of, with_attribution
from scircuit.runs.faithfulness import faithfulness
from scircuit.runs.run import Run
from scircuit.runs.stages import run as run_stages
from scircuit.runs.tokens import split_cells
from scircuit.tracing.probes.attribution import attributions
from scircuit.tracing.probes.behaviours import behaviour

SMALL = {"n_cells": 6, "draws": 4, "n_members": 3, "shares": (0.1, 1.0)}


@pytest.fixture(params=["geneformer", "scgpt"])
def config(request, finished: dict[str, Path], tmp_path: Path) -> RunConfig:
    """A finished run in a folder of its own."""
    shutil.copytree(finished[request.param] / "out", tmp_path / "out")
    return replace(load_config(finished[request.param] / "run.toml"), out=str(tmp_path / "out"))


def test_one_call_writes_what_three_questions_read(config: RunConfig) -> None:
    path = faithfulness(config, ["embedding", "loss", "latents:2:3+4"], **SMALL)
    table = pd.read_parquet(path)
    assert list(table.columns) == list(COLUMNS)
    assert list(table["behaviour"].unique()) == ["embedding", "loss", "latents:2:3+4"]
    record = read_json(path.with_suffix(".json"))
    assert (record["split"], record["n_cells"], record["grade"]) == ("confirmation", 6, "reproducible")
    run = Run(config.out)
    splits = run.cells().cells["_split"].to_numpy()
    assert (splits == "confirmation").sum() >= 6
    orders = table[table["kind"] == "order"]
    told = set(ORDERS) - {"specific"} if "specificity" not in run.circuit().edges else set(ORDERS)
    assert set(orders["order"]) == told
    assert set(orders["unit"]) == {"node", "edge"}
    own = analyze("faithfulness", config.out)
    assert own.estimate == own["faithfulness"].estimate
    assert own["faithfulness"].low <= own.estimate <= own["faithfulness"].high
    assert np.isfinite(own.null)
    assert np.isfinite(analyze("circuit_curve", config.out).estimate)
    tests = analyze("circuit_tests", config.out)
    assert len(tests.table) == 3
    assert "equivalent" not in set(tests.measures["measure"])
    with pytest.raises(ScircuitError, match="growth was not measured; the table has embedding, loss"):
        analyze("faithfulness", config.out, behaviour="growth")
    again = pd.read_parquet(faithfulness(config, ["embedding"], **SMALL))
    pd.testing.assert_frame_equal(again, table[table["behaviour"] == "embedding"].astype(again.dtypes.to_dict()))


def test_a_probe_and_its_accuracy(config: RunConfig) -> None:
    table = pd.read_parquet(faithfulness(config, ["probe:kind"], ablation="zero", **SMALL))
    assert set(table.loc[table["kind"] == "held_out", "value"]) <= {0.0, 1.0}
    # Whatever a random model makes of the score, this one is moved.
    moved = table.assign(value=table["value"] + 10.0 * (table["kind"] == "model"))
    answer = analyze("faithfulness", Run(config.out).holding(faithfulness=moved))
    assert 0 <= answer["probe_accuracy"].estimate <= 1
    assert answer["probe_accuracy"].unit_of_n == "cells"


def test_command_answers_at_once(config: RunConfig, finished: dict[str, Path]) -> None:
    toml = finished["geneformer" if "geneformer" in config.name else "scgpt"] / "run.toml"
    shown = CliRunner().invoke(
        app,
        ["faithfulness", str(toml), "--out", config.out, "--of", "embedding", "--n-cells", "4", "--draws", "3",
         "--members", "2"],
    )  # fmt: skip
    assert shown.exit_code == 0, (shown.output, shown.exception)
    for words in ("faithfulness: faithfulness", "circuit_curve: cpr_", "circuit_tests: sufficient", "silenced:"):
        assert words in shown.output
    assert {"faithfulness", "circuit_curve", "circuit_tests"} <= set(Run(config.out).answers()["question"])


def test_without_an_edge_of_the_grade_it_names_the_option(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Run.circuit

    def none_specific(self, *arguments, grade=None, **named):
        circuit = own(self, *arguments, grade=None, **named)
        return circuit if grade == "sizeable" else replace(circuit, edges=circuit.edges.iloc[:0], widest="specific")

    monkeypatch.setattr(Run, "circuit", none_specific)
    with pytest.raises(ScircuitError, match=r"no edge of .* is specific.*--grade sizeable"):
        faithfulness(config, ["embedding"], **SMALL)


def test_cells_that_found_the_circuit_are_never_measured(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(config.out) / "tokens" / "cells.parquet"
    cells = pd.read_parquet(path)
    for split, says in (("catalogue", None), ("discovery", "no cell is left that had no part")):
        found = cells["_split"].replace({"confirmation": split})
        moved = cells.assign(_split=found if split == "catalogue" else "discovery")
        (path.parent / "tokens.json").write_text((path.parent / "tokens.json").read_text().replace('"files"', '"was"'))
        moved.to_parquet(path)
        if says:
            with pytest.raises(ScircuitError, match=says):
                faithfulness(config, ["embedding"], **SMALL)
        else:
            record = faithfulness(config, ["embedding"], **SMALL).with_suffix(".json")
            assert read_json(record)["split"] == "catalogue"
            # Nor are those by whose gradients its sources were chosen.
            monkeypatch.setattr(
                "scircuit.runs.faithfulness.source_cells", lambda store, config: split_cells(store, "catalogue")[:-3]
            )
            record = faithfulness(config, ["embedding"], **SMALL).with_suffix(".json")
            assert read_json(record)["n_cells"] == 3
            monkeypatch.undo()


def test_sources_are_those_of_largest_attribution(finished: dict[str, Path], tmp_path: Path) -> None:
    """`sources.rule = "attribution"`: chosen again by hand from gradients in the same catalogue cells."""
    folder = finished["geneformer"]
    base = load_config(folder / "run.toml")
    sources = replace(base.sources, rule="attribution", of="embedding", n=3)
    config = replace(base, sources=sources, out=str(tmp_path / "new"))
    run_stages(replace(config, sae=replace(config.sae, path=str(folder / "out" / "saes"))), until="trace")
    run = Run(tmp_path / "new")
    tests = run.table("tests")
    own = tests.loc[tests["kind"] == "latent", ["source_layer", "source_feature"]].drop_duplicates()
    setup, latents = run.setup(), run.table("features")
    cells = setup.cells.subset(np.flatnonzero((setup.cells.cells["_split"] == "catalogue").to_numpy()))
    found = with_attribution(latents, "embedding", setup, cells, config.seed)
    found = found[(found["n_firings"] > 0) & (found["layer"] < 3)]
    found = found.assign(size=found["attribution"].abs()).sort_values("size", ascending=False)
    best = found.groupby("layer").head(3)
    assert sorted(map(tuple, own.to_numpy().tolist())) == sorted(zip(best["layer"], best["feature"], strict=True))
    assert run.provenance()["sources"]["rule"] == "attribution"


def test_gradients_follow_the_ablation(config: RunConfig) -> None:
    """They add up to what that ablation of every latent changes, so another one has others."""
    run = Run(config.out)
    setup, latents = run.setup(), run.table("features")
    cells = setup.cells.subset(np.arange(3))
    asked = behaviour("embedding", setup, cells, 0)
    for ablation, scale in (("mean", 1.0), ("zero", 0.0)):
        own = with_attribution(latents, "embedding", setup, cells, 0, ablation)["attribution"]
        means = {layer: scale * mean for layer, mean in means_of(latents, setup).items()}
        by_hand = attributions(replace(setup, cells=cells), asked, means)["attribution"]
        np.testing.assert_allclose(np.sort(own), np.sort(by_hand), atol=1e-7)


def test_a_folder_that_knew_no_behaviour_of_sources_opens(config: RunConfig) -> None:
    file = Path(config.out) / "config.json"
    content = read_json(file)
    del content["config"]["sources"]["of"]
    write_json(file, content)
    assert Run.open(config).config.sources.of == "loss"
    with pytest.raises(ScircuitError, match=r"sources\.of is 'loss' there"):
        Run.open(replace(config, sources=replace(config.sources, of="embedding")))
