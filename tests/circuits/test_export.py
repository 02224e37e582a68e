"""Exports are read back by the tools they are made for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scircuit._tables import write_csv
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.export import (
    decoupler_net,
    read_neuronpedia,
    to_networkx,
    write_cytoscape,
    write_graphml,
    write_neuronpedia,
)
from scircuit.circuits.export.graphs import write_decoupler, write_node_link
from scircuit.circuits.export.neuronpedia import NEURONPEDIA, cantor
from scircuit.circuits.export.tables import write_edge_csv, write_latents, write_tables
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.schema import ENDS, GRADES
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError
from scircuit.published.graph import read_published

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {
                "slug": TEXT,
                "scan": TEXT,
                "prompt": TEXT,
                "prompt_tokens": {**TEXTS, "minItems": 2},
                "schema_version": {"const": 1},
            },
        },
        "qParams": {
            "type": "object",
            "properties": {
                "pinnedIds": TEXTS,
                "supernodes": {"type": "array", "items": TEXTS},
                "linkType": {"const": "both"},
                "clickedId": TEXT,
                "sg_pos": TEXT,
            },
        },
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"],
                "properties": {
                    "node_id": {"type": "string", "pattern": r"^\d+_\d+_\d+$"},
                    "feature": {"type": ["integer", "null"]},
                    "layer": {"type": "string", "pattern": r"^\d+$"},
                    "ctx_idx": {"type": "integer"},
                    "feature_type": {"enum": ["cross layer transcoder", "logit"]},
                    "jsNodeId": {"type": "string", "pattern": r"^(\d+_\d+-0|L_0-1)$"},
                    "clerp": {"type": "string", "minLength": 1},
                    "activation": {"type": "number"},
                    "influence": {"type": "number", "minimum": 0, "maximum": 1},
                },
            },
        },
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "target", "weight"],
                "properties": {"source": TEXT, "target": TEXT, "weight": {"type": "number"}},
            },
        },
    },
}


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return planted_circuit(seed=3).circuit


@pytest.fixture(scope="module")
def empty() -> Circuit:
    return planted_circuit(n_layers=2, n_latents=8, n_sources=2, rule=EdgeRule(min_abs_d=99)).circuit


def strict(path: Path) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def expected(circuit: Circuit) -> dict[tuple[str, str], float]:
    rows = circuit.edges.itertuples()
    names = ((f"L{r.source_layer}_F{r.source_feature}", f"L{r.target_layer}_F{r.target_feature}", r) for r in rows)
    return {(source, target): -row.mean_delta for source, target, row in names}


def test_networkx_has_every_edge_with_its_sign_and_statistics(circuit: Circuit) -> None:
    graph = to_networkx(circuit)
    assert nx.get_edge_attributes(graph, "weight") == expected(circuit)
    first = next(circuit.edges.itertuples())
    ends = f"L{first.source_layer}_F{first.source_feature}", f"L{first.target_layer}_F{first.target_feature}"
    assert graph.edges[ends]["q_value"] == first.q_value
    assert graph.edges[ends]["sign"] == ("supporting" if first.mean_delta < 0 else "suppressing")
    used = {tuple(key) for side in (ENDS[:2], ENDS[2:]) for key in circuit.edges[side].to_numpy()}
    assert {(node["layer"], node["feature"]) for node in graph.nodes.values()} == used
    assert nx.is_directed_acyclic_graph(graph)
    values = [v for part in (graph.nodes, graph.edges) for attributes in part.values() for v in attributes.values()]
    assert all(value is not None and value == value for value in values)


def test_the_strongest_edges_are_kept(circuit: Circuit) -> None:
    graph = to_networkx(circuit, max_edges=20)
    kept = sorted((abs(d) for *_, d in graph.edges.data("cohens_d")), reverse=True)
    assert kept == sorted(circuit.edges["cohens_d"].abs(), reverse=True)[:20]


def test_graphml_survives_missing_labels_and_comes_back(circuit: Circuit, tmp_path: Path) -> None:
    nodes = circuit.nodes.assign(label=None, mean_activation=np.nan)
    bare = Circuit(circuit.edges, nodes, circuit.tests, circuit.controls, circuit.terms, circuit.provenance)
    write_graphml(bare, tmp_path / "circuit.graphml")
    back = nx.read_graphml(tmp_path / "circuit.graphml")
    assert nx.get_edge_attributes(back, "weight") == pytest.approx(expected(circuit))
    assert set(nx.get_node_attributes(back, "layer").values()) == {0, 1, 2, 3}


def test_cytoscape_file_comes_back(circuit: Circuit, tmp_path: Path) -> None:
    write_cytoscape(circuit, tmp_path / "circuit.cyjs")
    content = strict(tmp_path / "circuit.cyjs")
    back = nx.cytoscape_graph(content)
    assert nx.get_edge_attributes(back, "weight") == expected(circuit)
    assert {edge["data"]["interaction"] for edge in content["elements"]["edges"]} == {"supporting", "suppressing"}
    assert all(node["data"]["name"] for node in content["elements"]["nodes"])


def test_decoupler_net_has_every_edge_once(circuit: Circuit) -> None:
    net = decoupler_net(circuit)
    assert list(net.columns) == ["source", "target", "weight"]
    assert not net.duplicated(["source", "target"]).any()
    assert dict(zip(zip(net["source"], net["target"], strict=True), net["weight"], strict=True)) == expected(circuit)


def test_texts_that_a_spreadsheet_would_run_are_no_formulas(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a\r=1", "", 'x"y,z']
    write_csv(tmp_path / "x.csv", pd.DataFrame({"=label": texts, "d": [-1.5] * len(texts)}))
    back = pd.read_csv(tmp_path / "x.csv", keep_default_na=False)
    assert list(back) == ["'=label", "d"]
    assert back["'=label"].tolist() == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "' =1", "a =1", "", 'x"y,z']
    assert (back["d"] == -1.5).all()


def test_the_network_for_decoupler_is_its_net(circuit: Circuit, tmp_path: Path) -> None:
    write_decoupler(circuit, tmp_path / "network.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "network.csv"), decoupler_net(circuit))


@pytest.mark.slow
def test_decoupler_finds_the_source_that_is_active(circuit: Circuit, own_threads: None) -> None:
    decoupler = pytest.importorskip("decoupler", exc_type=ImportError)
    net = decoupler_net(circuit)
    driver = net["source"].value_counts().index[0]
    own = net[net["source"] == driver].set_index("target")["weight"]
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rng.normal(0, 0.1, (3, net["target"].nunique())), columns=sorted(net["target"].unique()))
    data.loc[0, own.index] += own
    scores, _ = decoupler.mt.ulm(data, net)
    assert scores.iloc[0].idxmax() == driver


def test_attribution_graph_is_what_the_viewers_take(circuit: Circuit, tmp_path: Path) -> None:
    path = write_neuronpedia(circuit, tmp_path, "pbmc-circuit")
    content = strict(path)
    pytest.importorskip("jsonschema").validate(content, SCHEMA)
    graph = nx.node_link_graph(
        {"directed": True, "multigraph": False, "graph": {}, **{k: content[k] for k in ("nodes", "links")}},
        edges="links",
        name="node_id",
    )
    assert len(graph.edges) == len(circuit.edges)
    assert all("clerp" in node for node in graph.nodes.values())
    # A feature that occurs in more than two thirds of the tokens is dropped by the viewer.
    tokens = content["metadata"]["prompt_tokens"]
    positions = pd.DataFrame(content["nodes"]).dropna(subset="feature").groupby("feature")["ctx_idx"].nunique()
    assert positions.max() / len(tokens) <= 2 / 3
    assert all(0 <= node["ctx_idx"] < len(tokens) for node in content["nodes"])
    (output,) = (node for node in content["nodes"] if node["feature_type"] == "logit")
    deepest = max(int(node["layer"]) for node in content["nodes"] if node is not output)
    assert int(output["layer"]) > deepest > 0, "the viewers' axis ends where the model does"
    assert "(p=" in output["clerp"], "the viewers split the text there"
    assert strict(tmp_path / "graph-metadata.json") == {"graphs": [content["metadata"]]}


def test_a_file_says_of_which_grade_its_edges_are(circuit: Circuit, tmp_path: Path) -> None:
    grade = pd.Categorical(["sizeable"] * len(circuit.edges), categories=GRADES, ordered=True)
    controls = circuit.controls.assign(grade=pd.Categorical(["sizeable"] * len(circuit.controls), GRADES, ordered=True))
    told = replace(
        circuit, edges=circuit.edges.assign(grade=grade), controls=controls,
        provenance=circuit.provenance | {"grade": "specific"},
    )  # fmt: skip
    for asked in ("reproducible", "sizeable"):  # and not specific, the strictest that the run tells
        content = strict(write_neuronpedia(told.at(asked), tmp_path, asked))
        assert f"all {len(circuit.edges):,} {asked} edges" in content["metadata"]["info"]["description"]
    with pytest.raises(ScircuitError, match=r"no edges that are specific.*--grade reproducible"):
        to_networkx(told.at("specific"))


def test_the_slider_of_the_viewers_hides_weak_latents_first(circuit: Circuit, tmp_path: Path) -> None:
    content = strict(write_neuronpedia(circuit, tmp_path, "mine"))
    strength: dict[str, float] = {}
    for link in content["links"]:
        for end in ("source", "target"):
            strength[link[end]] = strength.get(link[end], 0) + abs(link["weight"])
    share = {node["node_id"]: node["influence"] for node in content["nodes"] if "influence" in node}
    assert sorted(share, key=share.get) == sorted(strength, key=lambda name: -strength[name])
    assert max(share.values()) == pytest.approx(1) == content["metadata"]["node_threshold"]


@pytest.mark.parametrize(
    ("name", "slug"), [("Zellen-Übung", "Zellen-Ubung"), ("", "circuit"), ("细胞", "circuit"), ("a b/c", "a-b-c")]
)
def test_a_run_of_any_name_is_a_graph(circuit: Circuit, tmp_path: Path, name: str, slug: str) -> None:
    named = replace(circuit, provenance=circuit.provenance | {"name": name, "model": {"name": "/home/me/gf-mini"}})
    path = NEURONPEDIA.write(named, tmp_path, None, genes=None)
    assert path.name == f"{slug}.json"
    assert strict(path)["metadata"]["scan"] == "gf-mini"


def test_control_characters_of_labels_are_left_out_of_xml(circuit: Circuit, tmp_path: Path) -> None:
    strange = replace(circuit, nodes=circuit.nodes.assign(label="a\x00b\x1f\ud800 <&> Ü", n_terms=1))
    write_graphml(strange, tmp_path / "x.graphml")
    assert set(nx.get_node_attributes(nx.read_graphml(tmp_path / "x.graphml"), "label").values()) == {"ab <&> Ü"}


def test_node_link_json_opens_as_most_call_it(circuit: Circuit, tmp_path: Path) -> None:
    write_node_link(circuit, tmp_path / "circuit.json")
    content = strict(tmp_path / "circuit.json")
    for key in ("edges", "links"):  # of NetworkX since 3.6, and before
        assert nx.get_edge_attributes(nx.node_link_graph(content, edges=key), "weight") == expected(circuit)


def test_every_column_of_the_tables_has_a_meaning(circuit: Circuit, tmp_path: Path) -> None:
    folder = write_tables(circuit, tmp_path / "tables")
    dictionary = strict(folder / "dictionary.json")
    for name in ("edges", "nodes"):
        table = pd.read_parquet(folder / f"{name}.parquet")
        assert len(table) == len(getattr(circuit, name))
        assert list(dictionary[name]) == list(table)
        assert all(column["meaning"] for column in dictionary[name].values()), name
        assert {column: str(table[column].dtype) for column in table} == {
            column: said["type"] for column, said in dictionary[name].items()
        }


def test_a_spreadsheet_has_names_beside_numbers(circuit: Circuit, tmp_path: Path) -> None:
    write_edge_csv(circuit, tmp_path / "edges.csv", max_edges=7)
    table = pd.read_csv(tmp_path / "edges.csv", keep_default_na=False)
    assert len(table) == 7
    graph = to_networkx(circuit)
    for row in table.itertuples():
        assert row.source_label == graph.nodes[f"L{row.source_layer}_F{row.source_feature}"]["label"]
        assert row.target_genes == graph.nodes[f"L{row.target_layer}_F{row.target_feature}"]["genes"]


def test_scanpy_opens_latents_by_genes(circuit: Circuit, tmp_path: Path) -> None:
    first = circuit.edges.iloc[0]
    genes = pd.DataFrame(
        {"layer": first["source_layer"], "feature": first["source_feature"], "gene": ["LYZ", "CD3D"],
         "mean_activation": [0.5, 2.0]}
    )  # fmt: skip
    write_latents(circuit, tmp_path / "circuit.h5ad", genes=genes)
    found = anndata.read_h5ad(tmp_path / "circuit.h5ad")
    source, target = (f"L{first[f'{end}_layer']}_F{first[f'{end}_feature']}" for end in ("source", "target"))
    assert found[source, "CD3D"].X.toarray() == [[2.0]]
    place = found.obs_names.get_indexer([source, target])
    assert found.obsp["mean_delta"][place[0], place[1]] == first["mean_delta"]
    assert found.obsp["cohens_d"].nnz == len(circuit.edges)
    with pytest.raises(ScircuitError, match="genes of the latents are not there"):
        write_latents(circuit, tmp_path / "none.h5ad")


def test_attribution_graph_comes_back_as_the_same_edges(circuit: Circuit, tmp_path: Path) -> None:
    back = read_neuronpedia(write_neuronpedia(circuit, tmp_path, "mine"))
    columns = [*ENDS, "cohens_d", "mean_delta", "q_value", "n_cells"]
    pd.testing.assert_frame_equal(back.edges[columns], circuit.edges[columns], check_dtype=False)
    assert np.allclose(back.edges["weight"], -circuit.edges["mean_delta"])
    labels = circuit.nodes[circuit.nodes["n_terms"] > 0].set_index(["layer", "feature"])["label"]
    found = back.nodes.set_index(["layer", "feature"])["label"]
    common = found.index.intersection(labels.index)
    assert len(common) > 50
    assert (found[common] == labels[common]).all()


def test_graphs_share_a_folder_and_replace_themselves(circuit: Circuit, tmp_path: Path) -> None:
    for slug in ("one", "two", "one"):
        write_neuronpedia(circuit, tmp_path, slug, max_edges=5)
    entries = strict(tmp_path / "graph-metadata.json")["graphs"]
    assert sorted(entry["slug"] for entry in entries) == ["one", "two"]
    assert f"5 strongest of {len(circuit.edges):,}" in entries[0]["info"]["description"]


def test_feature_details_hold_genes_as_tokens(circuit: Circuit, tmp_path: Path) -> None:
    first = circuit.edges.iloc[0]
    layer, feature = int(first["source_layer"]), int(first["source_feature"])
    genes = pd.DataFrame(
        {"layer": layer, "feature": feature, "gene": ["LYZ", "CD3D"], "mean_activation": np.float32([0.5, 2.0])}
    )
    content = strict(write_neuronpedia(circuit, tmp_path, "mine", genes=genes))
    assert content["metadata"]["scan"] == "./data/features/mine"
    detail = strict(tmp_path / "features" / "mine" / f"{cantor(layer, feature)}.json")
    assert detail["index"] == feature
    assert detail["examples_quantiles"][0]["examples"] == [{"tokens": ["CD3D", "LYZ"], "tokens_acts_list": [2.0, 0.5]}]
    assert {path.stem for path in (tmp_path / "features" / "mine").iterdir()} == {
        str(node["feature"]) for node in content["nodes"] if node["feature"] is not None
    }


@given(st.integers(0, 60), st.integers(0, 200_000), st.integers(0, 60), st.integers(0, 200_000))
def test_cantor_numbers_are_unique(a: int, b: int, c: int, d: int) -> None:
    assert (cantor(a, b) == cantor(c, d)) == ((a, b) == (c, d))


def test_cantor_numbers_of_the_formula() -> None:
    # (x + y)(x + y + 1)/2 + y at small values, by hand.
    assert [cantor(0, 0), cantor(1, 0), cantor(0, 1), cantor(2, 0), cantor(1, 1), cantor(0, 2)] == [0, 1, 2, 3, 4, 5]
    assert cantor(0, 41) == 902


def prompt_graph() -> dict[str, Any]:
    def feature(layer: int, index: int, position: int) -> dict[str, Any]:
        return {
            "node_id": f"{layer}_{index}_{position}", "feature": cantor(layer, index), "layer": str(layer),
            "ctx_idx": position, "feature_type": "cross layer transcoder", "jsNodeId": f"{layer}_{index}-0",
            "clerp": "capitals", "influence": 0.4,
        }  # fmt: skip

    token = feature(0, 0, 1) | {"node_id": "E_22_1", "feature": 22, "layer": "E", "feature_type": "embedding"}
    logit = feature(9, 5, 2) | {"node_id": "10_5_2", "feature_type": "logit", "clerp": "Austin (p=0.4)"}
    return {
        "metadata": {"slug": "austin", "scan": "gemma", "prompt": "a b c", "prompt_tokens": ["a", "b", "c"]},
        "qParams": {},
        "nodes": [token, feature(0, 41, 1), feature(0, 41, 2), feature(3, 7, 2), logit],
        "links": [
            {"source": "E_22_1", "target": "0_41_1", "weight": 3.0},
            {"source": "0_41_1", "target": "3_7_2", "weight": -1.5},
            {"source": "0_41_2", "target": "3_7_2", "weight": 0.5},
            {"source": "3_7_2", "target": "10_5_2", "weight": 2.0},
        ],
    }


def test_a_prompt_graph_of_another_maker_is_read(tmp_path: Path) -> None:
    path = tmp_path / "austin.json"
    path.write_text(json.dumps(prompt_graph()))
    graph = read_neuronpedia(path)
    assert graph.edges[[*ENDS, "weight", "source_position"]].to_numpy().tolist() == [
        [0, 41, 3, 7, -1.5, 1],
        [0, 41, 3, 7, 0.5, 2],
    ]
    assert graph.nodes[["layer", "feature", "position", "label", "influence"]].to_numpy().tolist() == [
        [0, 41, 1, "capitals", 0.4],
        [0, 41, 2, "capitals", 0.4],
        [3, 7, 2, "capitals", 0.4],
    ]
    assert graph.metadata["slug"] == "austin"


def test_a_broken_attribution_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    content = prompt_graph()
    content["links"][1]["target"] = "gone"
    path.write_text(json.dumps(content))
    with pytest.raises(ScircuitError, match="'gone', which is not among its nodes"):
        read_neuronpedia(path)
    path.write_text('{"nodes": []}')
    with pytest.raises(ScircuitError, match="has no metadata, links"):
        read_neuronpedia(path)
    content = prompt_graph()
    content["nodes"][1]["jsNodeId"] = "strange"
    path.write_text(json.dumps(content))
    with pytest.raises(ScircuitError, match="jsNodeId 'strange'"):
        read_neuronpedia(path)


def published() -> dict[str, Any]:
    edge = {"source_layer": 0, "source_feature": 4, "source_label": "Mitosis", "target_layer": 5, "target_feature": 9}
    numbers = {"cohens_d": -1.2, "consistency": 0.9, "mean_delta": -0.3}
    other = {"target_layer": 11, "target_feature": 4, "cohens_d": 0.7}
    return {"n_edges": 2, "n_source_features": 1, "edges": [edge | numbers, edge | numbers | other]}


def test_the_published_graph_is_read(tmp_path: Path) -> None:
    path = tmp_path / "circuit_graph.json"
    path.write_text(json.dumps(published()))
    graph = read_published(path)
    assert graph.edges[[*ENDS, "cohens_d"]].to_numpy().tolist() == [[0, 4, 5, 9, -1.2], [0, 4, 11, 4, 0.7]]
    assert graph.nodes["label"].tolist() == ["Mitosis", None, None]
    assert graph.metadata == {"n_edges": 2, "n_source_features": 1}


def test_a_cut_off_published_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "circuit_graph.json"
    path.write_text(json.dumps(published() | {"n_edges": 3}))
    with pytest.raises(ScircuitError, match="states 3 edges and holds 2"):
        read_published(path)
    path.write_text(json.dumps({"edges": [{"source_layer": 0}]}))
    with pytest.raises(ScircuitError, match="lack source_feature"):
        read_published(path)
    path.write_text("[]")
    with pytest.raises(ScircuitError, match="no list 'edges'"):
        read_published(path)


def test_what_cannot_be_exported_is_refused(circuit: Circuit, empty: Circuit, tmp_path: Path) -> None:
    with pytest.raises(ScircuitError, match="no edges"):
        to_networkx(empty)
    with pytest.raises(ScircuitError, match="slug"):
        write_neuronpedia(circuit, tmp_path, "../elsewhere")
    nameless = Circuit(circuit.edges, circuit.nodes, circuit.tests, circuit.controls, circuit.terms, {})
    with pytest.raises(ScircuitError, match="names no model"):
        write_neuronpedia(nameless, tmp_path, "mine")
    headless = Circuit(circuit.edges, circuit.nodes.iloc[:3], circuit.tests, circuit.controls, circuit.terms, {})
    with pytest.raises(ScircuitError, match="not in the node table"):
        to_networkx(headless)
    assert not list(tmp_path.iterdir())
