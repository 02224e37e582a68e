"""Attribution-graph JSON, which circuit-tracer's viewer and Neuronpedia show.

Those graphs are made for one prompt, a circuit for many cells, so the file carries a pseudo-prompt of two tokens
(the viewers drop features that occur in all tokens, hence never one) and every latent stands at the second. The
viewers take their axis from a logit node, so there is one on top, without an edge, that stands for the model's output.
"""

import logging
import re
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import read_json, write_json
from scircuit._version import __version__
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.export.format import Format
from scircuit.circuits.export.parts import (
    Graph,
    Key,
    described,
    ends,
    require_ends,
    statistics,
    strongest,
    weights,
)
from scircuit.errors import ScircuitError

logger = logging.getLogger(__name__)

FEATURE_TYPE = "cross layer transcoder"
"""The one kind of node that the viewers draw with a detail pane."""
POSITION = 1
DETAIL_GENES = 20
MOST_EDGES = 5000
"""Edges that the viewer loads."""


def cantor(layer: int, feature: int) -> int:
    """The viewers' number of a latent: (x + y)(x + y + 1)/2 + y with x = layer, y = feature."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def write_neuronpedia(
    circuit: Circuit,
    folder: str | Path,
    slug: str,
    genes: pd.DataFrame | None = None,
    max_edges: int | None = MOST_EDGES,
) -> Path:
    """Write `<folder>/<slug>.json` and enter it in `<folder>/graph-metadata.json`; returns the graph file.

    `folder` is one of graphs, as circuit-tracer's `start-server` takes it; those already in it stay. `slug` is made of
    letters, digits, `-` and `_`. With `genes` (`features/genes.parquet`) each latent gets a detail file in which its
    genes stand as tokens with their mean activations, and `scan` points to those files instead of naming the model.
    Edges are the `max_edges` of largest |d| (the upload limit is 100 MB) or all. A link's `weight` is minus the mean
    response (positive = supporting, in units of the target's activation); the statistics of the edge table stand beside
    it.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", slug):
        raise ScircuitError(f"slug is {slug!r}; use letters, digits, '-' and '_' only: it becomes a file name.")
    folder = Path(folder)
    edges = strongest(circuit, max_edges)
    nodes = described(circuit, edges)
    metadata = _metadata(circuit, slug, len(edges), with_details=genes is not None)
    path, shares = folder / f"{slug}.json", _shares(edges)
    content = {
        "metadata": metadata,
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [*(_node(key, values, shares[key]) for key, values in nodes.items()), _output(circuit, nodes)],
        "links": [
            {"source": _id(source), "target": _id(target), "weight": weight, **values}
            for (source, target), weight, values in zip(ends(edges), weights(edges), statistics(edges), strict=True)
        ],
    }
    if genes is not None:
        _write_details(folder / "features" / slug, nodes, genes)
    write_json(path, content)
    _enter(folder / "graph-metadata.json", metadata)
    return path


def _metadata(circuit: Circuit, slug: str, n_edges: int, with_details: bool) -> dict[str, Any]:
    model = circuit.provenance.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    if not isinstance(name, str) or not name:
        raise ScircuitError("the circuit's provenance names no model; set provenance['model'] to its name.")
    name = Path(name).name  # of a folder, what it is called
    prompt = [name, " cells"]
    shown = "all" if n_edges == len(circuit.edges) else f"the {n_edges:,} strongest of"
    return {
        "slug": slug,
        "scan": f"./data/features/{slug}" if with_details else name,
        "prompt_tokens": prompt,
        "prompt": "".join(prompt),
        "schema_version": 1,
        "node_threshold": 1.0,
        "pruning_settings": {"node_threshold": 1.0, "edge_threshold": 1.0},
        "info": {
            "description": f"{name}: {shown} {len(circuit.edges):,} {circuit.widest} edges over cells; the prompt "
            "stands for the cells, the node on top for the model's output. Link weight = minus the mean change of the "
            "target when the source is ablated.",
            "generator": {"name": "scircuit", "version": __version__},
        },
        "run_id": circuit.run_id,
    }


def _id(key: Key) -> str:
    return f"{key[0]}_{key[1]}_{POSITION}"


def _shares(edges: pd.DataFrame) -> dict[Key, float]:
    """Per latent the share of all |weight| on the edges of those at least as strong: what the viewers prune by."""
    strength: dict[Key, float] = {}
    for pair, weight in zip(ends(edges), weights(edges), strict=True):
        for key in pair:
            strength[key] = strength.get(key, 0.0) + abs(weight)
    total, so_far, found = sum(strength.values()) or 1.0, 0.0, {}
    for key in sorted(strength, key=lambda key: (-strength[key], key)):
        so_far += strength[key]
        found[key] = min(so_far / total, 1.0)
    return found


def _output(circuit: Circuit, nodes: dict[Key, dict[str, Any]]) -> dict[str, Any]:
    """The node from which the viewers know the number of layers."""
    model = circuit.provenance.get("model")
    deepest = max(layer for layer, _ in nodes)
    layer = int(model.get("n_layers", deepest + 1)) if isinstance(model, dict) else deepest + 1
    return {
        "node_id": f"{layer}_0_{POSITION}",
        "feature": None,
        "layer": str(layer),
        "ctx_idx": POSITION,
        "feature_type": "logit",
        "jsNodeId": f"L_0-{POSITION}",
        # The viewers split the text at "(p=".
        "clerp": "output of the model (p=1.00)",
        "token_prob": 1.0,
        "is_target_logit": False,
    }


def _node(key: Key, values: dict[str, Any], share: float) -> dict[str, Any]:
    node = {
        "node_id": _id(key),
        "feature": cantor(*key),
        "layer": str(key[0]),
        "ctx_idx": POSITION,
        "feature_type": FEATURE_TYPE,
        "jsNodeId": f"{key[0]}_{key[1]}-0",
        "clerp": values["label"],
        "influence": share,
    }
    if "mean_activation" in values:
        node["activation"] = values["mean_activation"]
    return node | {name: values[name] for name in ("frequency", "n_terms", "genes", "is_source") if name in values}


def _write_details(folder: Path, nodes: dict[Key, dict[str, Any]], genes: pd.DataFrame) -> None:
    by_latent = dict(tuple(genes.groupby(["layer", "feature"])))
    for key in nodes:
        examples = []
        if key in by_latent:
            top = by_latent[key].nlargest(DETAIL_GENES, "mean_activation")
            values = [float(value) for value in top["mean_activation"]]
            examples = [{"tokens": top["gene"].astype(str).tolist(), "tokens_acts_list": values}]
        quantiles = [{"quantile_name": "Genes by mean activation", "examples": examples}]
        detail = {"index": key[1], "examples_quantiles": quantiles, "top_logits": [], "bottom_logits": []}
        write_json(folder / f"{cantor(*key)}.json", detail)


def _enter(path: Path, metadata: dict[str, Any]) -> None:
    known = read_json(path)["graphs"] if path.exists() else []
    write_json(path, {"graphs": [entry for entry in known if entry["slug"] != metadata["slug"]] + [metadata]})


def read_neuronpedia(path: str | Path) -> Graph:
    """Read an attribution graph of any maker as tables of latents.

    Token, error and logit nodes are not latents: they and their links are left out, and their number is logged. A
    latent that stands at several tokens of the prompt keeps one row per position. Edges have `weight`,
    `source_position`, `target_position` and every further number of the links; nodes `position`, `label`,
    `feature_type` and every further value.
    """
    content = read_json(path)
    missing = [key for key in ("metadata", "nodes", "links") if not isinstance(content, dict) or key not in content]
    if missing:
        raise ScircuitError(f"{path} has no {', '.join(missing)}; it is not an attribution graph.")
    every = {node["node_id"]: _read_node(node) for node in content["nodes"]}
    nodes = {name: node for name, node in every.items() if node is not None}
    edges = []
    for link in content["links"]:
        for end in ("source", "target"):
            if link[end] not in every:
                raise ScircuitError(f"{path} has a link to {link[end]!r}, which is not among its nodes.")
        if link["source"] in nodes and link["target"] in nodes:
            edges.append(_read_link(link, nodes))
    if len(nodes) < len(every) or len(edges) < len(content["links"]):
        skipped = len(every) - len(nodes), len(content["links"]) - len(edges)
        logger.info("%s: left out %d token, error and logit nodes and their %d links", path, *skipped)
    columns = ["source_layer", "source_feature", "target_layer", "target_feature", "weight"]
    table = pd.DataFrame(edges, columns=None if edges else columns)
    return Graph(require_ends(table), pd.DataFrame(list(nodes.values())), content["metadata"])


def _read_node(node: dict[str, Any]) -> dict[str, Any] | None:
    if node["feature_type"] != FEATURE_TYPE:
        return None
    found = re.fullmatch(r"(\d+)_(\d+)-\d+", node["jsNodeId"])
    if found is None:
        raise ScircuitError(
            f"node {node['node_id']!r} has the jsNodeId {node['jsNodeId']!r}; a latent's is <layer>_<feature>-<number>."
        )
    known = {"node_id", "jsNodeId", "feature", "layer", "ctx_idx", "clerp"}
    return {
        "layer": int(found[1]),
        "feature": int(found[2]),
        "position": node["ctx_idx"],
        "label": node["clerp"],
        **{key: value for key, value in node.items() if key not in known},
    }


def _read_link(link: dict[str, Any], nodes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    source, target = nodes[link["source"]], nodes[link["target"]]
    return {
        **{f"source_{key}": source[key] for key in ("layer", "feature", "position")},
        **{f"target_{key}": target[key] for key in ("layer", "feature", "position")},
        **{key: value for key, value in link.items() if key not in ("source", "target")},
    }


def _of_run(circuit: Circuit, folder: Path, max_edges: int | None, genes: pd.DataFrame | None) -> Path:
    """Under the name of the run, with as many edges as the viewer loads."""
    plain = unicodedata.normalize("NFKD", str(circuit.provenance.get("name") or "circuit"))
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", "".join(c for c in plain if not unicodedata.combining(c))).strip("-")
    if max_edges is None and len(circuit.edges) > MOST_EDGES:
        logger.warning(
            "the %s strongest of %s edges are written; --max-edges N takes more than the viewer draws well",
            f"{MOST_EDGES:,}", f"{len(circuit.edges):,}",
        )  # fmt: skip
    return write_neuronpedia(circuit, folder, slug or "circuit", genes, max_edges or MOST_EDGES)


NEURONPEDIA = Format(
    "neuronpedia",
    "circuit-tracer's viewer: an attribution graph with a file per latent",
    "neuronpedia",
    _of_run,
    genes=True,
)
