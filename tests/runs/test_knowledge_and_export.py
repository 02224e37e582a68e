"""`scircuit knowledge`, gene sets by name in a config, and `scircuit export`."""

import json
from pathlib import Path

import anndata
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json
from scircuit._tables import write_parquet
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.export import read_neuronpedia
from scircuit.circuits.export.formats import formats
from scircuit.circuits.synthetic import planted_circuit
from scircuit.cli.app import app
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.runs.stages import run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def test_list_add_and_show(cache: Path, tmp_path: Path) -> None:
    gmt = tmp_path / "mine.gmt"
    gmt.write_text("one\t\tGENE1\tGENE2\tGENE3\n")
    assert "programs" in said("knowledge", "list")
    said("knowledge", "add", "mine", gmt, "--licence", "CC0", "--version", "7")
    row = next(line for line in said("knowledge", "list").splitlines() if line.strip().startswith("mine"))
    assert "cached" in row
    assert "CC0" in row
    shown = json.loads(said("knowledge", "show", "mine"))
    assert (shown["version"], shown["state"], shown["n_entries"]) == ("7", "cached", 1)


def test_unknown_source_names_the_nearest(cache: Path) -> None:
    result = CliRunner().invoke(app, ["knowledge", "fetch", "trust"])
    assert isinstance(result.exception, ScircuitError)
    assert "did you mean" in str(result.exception)
    assert "trrust" in str(result.exception)
    assert not cache.exists()


def test_a_run_takes_gene_sets_by_name(cache: Path, project, scgpt_folder: Path) -> None:
    folder = project(scgpt_folder, edit=lambda text: text.replace('"sets.gmt"', '"mine"'))
    config = load_config(folder / "run.toml")
    with pytest.raises(ScircuitError, match="There is no source called 'mine'"):
        run(config)
    assert not (folder / "out").exists()
    said("knowledge", "add", "mine", folder / "sets.gmt")
    out = run(config, until="features").stage("features")
    assert read_json(out / "labels.json")["libraries"][0]["n_sets"] == 12


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    circuit = planted_circuit(seed=0).circuit
    circuit.write(folder / "circuit")
    genes = circuit.nodes[["layer", "feature"]].assign(gene="LYZ", mean_activation=np.float32(1))
    write_parquet(folder / "features" / "genes.parquet", genes)
    return folder


@pytest.mark.parametrize("fmt", formats())
def test_every_format_holds_every_edge(planted: Path, fmt: str) -> None:
    edges = Circuit.read(planted / "circuit").edges
    path = Path(said("export", planted, "--format", fmt).strip())
    assert path.is_relative_to(planted / "export")
    if fmt == "neuronpedia":
        n = len(read_neuronpedia(path).edges)
    elif fmt == "graphml":
        n = nx.read_graphml(path).number_of_edges()
    elif fmt == "networkx-json":
        graph = nx.node_link_graph(json.loads(path.read_text()), edges="links")
        n = graph.number_of_edges()
        weights = nx.get_edge_attributes(graph, "cohens_d")
        assert sorted(weights.values()) == pytest.approx(sorted(edges["cohens_d"]))
    elif fmt == "cytoscape":
        n = len(json.loads(path.read_text())["elements"]["edges"])
    elif fmt == "parquet":
        n = len(pd.read_parquet(path / "edges.parquet"))
    elif fmt == "anndata":
        n = anndata.read_h5ad(path).obsp["q_value"].nnz
    else:
        n = len(pd.read_csv(path))
    assert n == len(edges)


def test_formats_are_listed(planted: Path) -> None:
    listed = said("export", planted, "--format", "list")
    assert [line.split()[0] for line in listed.splitlines()] == list(formats())


def test_strongest_edges_only(planted: Path, tmp_path: Path) -> None:
    said("export", planted, "--format", "graphml", "--max-edges", 10, "--out", tmp_path / "ten.graphml")
    assert nx.read_graphml(tmp_path / "ten.graphml").number_of_edges() == 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["RUN", "gexf"], "cytoscape, graphml, decoupler"), (["none", "graphml"], "none holds no circuit")],
)
def test_wrong_export(planted: Path, arguments: list[str], says: str) -> None:
    folder = str(planted) if arguments[0] == "RUN" else arguments[0]
    result = CliRunner().invoke(app, ["export", folder, "--format", arguments[1]])
    assert isinstance(result.exception, ScircuitError)
    assert says in str(result.exception)
