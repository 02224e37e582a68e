"""Confirmation: the listed edges, exactly, in cells of their own; switched off, stopped, limited, reported."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from scircuit._io import read_json
from scircuit.cells.tokens import TokenStore
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.models.load import load_model
from scircuit.runs.stages import run
from scircuit.runs.tokens import split_cells
from scircuit.runs.trace import some_sources
from scircuit.sae.checkpoint import load_saes
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.tracing import tracer
from scircuit.tracing.replicate import replicate
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup


class Finished(NamedTuple):
    out: Path
    model: object
    saes: dict
    cells: TokenStore
    circuit: Circuit
    settings: TraceSettings


@pytest.fixture(scope="module")
def done(finished: dict[str, Path]) -> Finished:
    """A finished run and its confirmation cells."""
    folder = finished["scgpt"]
    config = load_config(folder / "run.toml")
    out = folder / "out"
    store = TokenStore.read(out / "tokens")
    cells = store.subset(split_cells(store, "confirmation"))
    model = load_model(config.model.source, device="cpu")
    return Finished(out, model, load_saes(out / "saes"), cells, Circuit.read(out / "circuit"), config.trace)


def test_every_edge_has_the_row_that_a_whole_trace_of_those_cells_gives(done: Finished, tmp_path: Path) -> None:
    table = pd.read_parquet(done.out / "confirmation" / "edges.parquet")
    assert len(table) == len(done.circuit.edges) > 5
    sources = {int(a): sorted(set(p["source_feature"])) for a, p in table.groupby("source_layer")}
    settings = replace(done.settings, engine="exact", n_random=0, groups=(), retention=1.0)
    folder = tracer.trace(done.model, done.saes, done.cells, sources, tmp_path / "trace", settings=settings)
    effects = pd.read_parquet(folder / "effects.parquet").set_index(ENDS)
    rows = table.set_index(ENDS)
    both = rows.index.intersection(effects.index)
    assert len(both) > 5
    for column in ("n_cells", "n_nonzero", "n_pos", "mean_delta", "sd_delta", "cohens_d", "hedges_g", "consistency"):
        np.testing.assert_array_equal(rows.loc[both, column], effects.loc[both, column], err_msg=column)
    few = effects.loc[both, "n_nonzero"] <= 20  # exact sign-flips, no draws
    np.testing.assert_allclose(rows.loc[both, "p_value"][few], effects.loc[both, "p_value"][few])
    silent = rows.drop(both)
    assert (silent[["n_nonzero", "cohens_d", "mean_delta"]] == 0).all(axis=None)
    assert (silent["p_value"] == 1).all()
    np.testing.assert_allclose(table["q_value"], benjamini_hochberg(table["p_value"].to_numpy()))
    found = done.circuit.edges.set_index(ENDS)
    np.testing.assert_array_equal(rows["discovery_d"], found.loc[rows.index, "cohens_d"])
    record = read_json(done.out / "confirmation" / "confirmation.json")
    assert (record["n_edges"], record["n_circuit_edges"], record["n_cells"]) == (len(table), len(table), 8)
    assert record["cells"] == done.cells.fingerprint
    assert record["circuit"] == done.circuit.run_id
    assert record["n_ablated_forwards"] > 0


def setup_of(done: Finished, settings: TraceSettings | None = None) -> Setup:
    return Setup(done.model, done.saes, done.cells, settings=settings or done.settings)


def edges_with_silent_target(done: Finished) -> pd.DataFrame:
    """The edges and one more, to a latent that no cell moves."""
    edges = done.circuit.edges
    first = edges.iloc[[0]]
    taken = set(pd.read_parquet(done.out / "trace" / "effects.parquet")["target_feature"])
    free = next(i for i in range(done.saes[int(first["target_layer"].iloc[0])].n_latents) if i not in taken)
    return pd.concat([edges, first.assign(target_feature=free)], ignore_index=True)


def test_stopped_confirmation_goes_on_to_the_same_bytes(
    done: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(done.settings, cells_per_block=3, sources_per_block=2)
    whole = replicate(setup_of(done, settings), done.circuit.edges, tmp_path / "whole")
    ran = []
    unit = tracer.run_unit

    def stopping(*args: object, **options: object):
        ran.append(1)
        if len(ran) == 4:
            raise KeyboardInterrupt
        return unit(*args, **options)

    arguments = (setup_of(done, settings), done.circuit.edges, tmp_path / "stopped")
    monkeypatch.setattr(tracer, "run_unit", stopping)
    with pytest.raises(KeyboardInterrupt):
        replicate(*arguments)
    assert not (tmp_path / "stopped" / "confirmation.json").exists()
    replicate(*arguments)
    assert sorted(p.name for p in (tmp_path / "stopped").iterdir()) == ["confirmation.json", "edges.parquet"]
    for name in ("edges.parquet", "confirmation.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (whole / name).read_bytes()
    assert len(ran) > 5  # what was whole is not repeated; a finished confirmation runs nothing
    ran.clear()
    replicate(*arguments)
    assert not ran
    with pytest.raises(ScircuitError, match="holds the confirmation of other inputs"):
        replicate(arguments[0], done.circuit.edges.iloc[1:], arguments[2])


def test_silent_targets_no_edges_and_foreign_edges(done: Finished, tmp_path: Path) -> None:
    more = edges_with_silent_target(done)
    folder = replicate(setup_of(done), more, tmp_path / "more")
    table = pd.read_parquet(folder / "edges.parquet")
    assert len(table) == len(more)
    assert (table["n_nonzero"] == 0).any()
    none = replicate(setup_of(done), more.iloc[:0], tmp_path / "none")
    empty = pd.read_parquet(none / "edges.parquet")
    assert list(empty.columns) == list(table.columns)
    assert (empty.dtypes == table.dtypes).all()
    with pytest.raises(ScircuitError, match="An edge's target is in no dictionary"):
        replicate(setup_of(done), more.assign(target_feature=9999), tmp_path / "wrong")
    with pytest.raises(ScircuitError, match="No cell is left to confirm edges in"):
        replicate(replace(setup_of(done), cells=done.cells.subset(np.arange(0))), more, tmp_path / "wrong")


def test_units_are_tested_as_in_the_trace(done: Finished, tmp_path: Path) -> None:
    settings = replace(done.settings, units="kind", engine="exact", n_random=0, groups=(), retention=1.0)
    folder = replicate(setup_of(done, settings), done.circuit.edges, tmp_path / "units")
    again = pd.read_parquet(folder / "edges.parquet").set_index(ENDS)["p_value"]
    sources = {int(a): sorted(set(p["source_feature"])) for a, p in done.circuit.edges.groupby("source_layer")}
    trace = tracer.trace(done.model, done.saes, done.cells, sources, tmp_path / "trace", settings=settings)
    expected = pd.read_parquet(trace / "effects.parquet").set_index(ENDS)["p_value"]
    both = again.index.intersection(expected.index)
    assert len(both) > 5
    np.testing.assert_allclose(again[both], expected[both])
    assert read_json(trace / "trace.json")["p_value"] == "t of the means of 2 values of kind"


def test_at_most_so_many_sources(done: Finished) -> None:
    edges = done.circuit.edges
    one = some_sources(edges, 1, 0)
    assert (one.groupby("source_layer")["source_feature"].nunique() == 1).all()
    assert one["source_layer"].nunique() == edges["source_layer"].nunique()
    full = edges.merge(one[ENDS[:2]].drop_duplicates())
    assert len(one) == len(full)
    assert some_sources(edges, None, 0) is edges
    assert some_sources(edges.iloc[:0], 3, 0).empty


def test_the_switch_leaves_no_trace(finished: dict[str, Path], tmp_path: Path) -> None:
    config = load_config(finished["scgpt"] / "run.toml")
    shares = {"train": 0.3, "catalogue": 0.2, "discovery": 0.5}
    config = replace(
        config,
        out=str(tmp_path / "out"),
        cells=replace(config.cells, shares=shares),
        confirmation=replace(config.confirmation, n_cells=0),
    )
    out = run(config, until="analysis").root
    assert not (out / "confirmation").exists()
    assert "replication" not in set(pd.read_parquet(out / "analysis" / "answers.parquet")["question"])


def test_the_answer_is_in_summary_and_report(finished: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished["scgpt"] / "out", out)
    answers = pd.read_parquet(out / "analysis" / "answers.parquet").set_index(["question", "measure"])
    table = pd.read_parquet(out / "confirmation" / "edges.parquet")
    same = np.sign(table["cohens_d"]) == np.sign(table["discovery_d"])
    share = answers.loc[("replication", "confirmed_share"), "estimate"]
    assert share == pytest.approx((same & (table["q_value"] < 0.05)).mean())
    assert ("replication", "slope") in answers.index
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "Replication in other cells" in page
    assert "winner&#39;s-curse slope" in page or "winner's-curse slope" in page
