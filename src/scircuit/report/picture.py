"""The circuit as a picture: which edges are drawn, in which order the features of a layer stand."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit._tables import records
from scircuit.circuits.schema import gene_list

LAYER_GAP = 1.0
"""Distance between the columns of two layers, in units of the picture's height."""
SHOWN_EDGES = 120
"""Edges of the figure."""
SWEEPS = 12
"""Passes of the ordering; more change nothing that an eye would see."""

Key = tuple[int, int]


class Drawn(NamedTuple):
    """Edges and nodes with their places.

    `edges` has the circuit's columns and `x0, y0, x1, y1`; `nodes` has the circuit's columns and `name, x, y`
    (y in 0..1), `degree` (drawn edges) and `strength` (sum of their |d|).
    """

    edges: pd.DataFrame
    nodes: pd.DataFrame


def strongest(edges: pd.DataFrame, nodes: pd.DataFrame, n: int) -> Drawn:
    """The `n` edges of largest |d| (ties in the table's order) and the features at their ends, laid out."""
    order = np.argsort(-edges["cohens_d"].abs().to_numpy(dtype=float), kind="stable")[:n]
    kept = edges.iloc[order].reset_index(drop=True)
    sources = list(zip(kept["source_layer"].tolist(), kept["source_feature"].tolist(), strict=True))
    targets = list(zip(kept["target_layer"].tolist(), kept["target_feature"].tolist(), strict=True))
    weights = kept["cohens_d"].abs().tolist()
    places = _layout(sources, targets, weights)
    columns = {layer: column for column, layer in enumerate(sorted({layer for layer, _ in places}))}
    kept = kept.assign(
        x0=[LAYER_GAP * columns[key[0]] for key in sources],
        y0=[places[key] for key in sources],
        x1=[LAYER_GAP * columns[key[0]] for key in targets],
        y1=[places[key] for key in targets],
    )
    keys = list(zip(nodes["layer"].tolist(), nodes["feature"].tolist(), strict=True))
    placed = nodes[[key in places for key in keys]].reset_index(drop=True)
    keys = [key for key in keys if key in places]
    degree, strength = dict.fromkeys(places, 0), dict.fromkeys(places, 0.0)
    for source, target, weight in zip(sources, targets, weights, strict=True):
        for key in (source, target):
            degree[key] += 1
            strength[key] += weight
    return Drawn(
        kept,
        placed.assign(
            name=[node_name(row) for row in records(placed)],
            x=[LAYER_GAP * columns[key[0]] for key in keys],
            y=[places[key] for key in keys],
            degree=[degree[key] for key in keys],
            strength=[strength[key] for key in keys],
        ),
    )


def node_name(node: dict[str, Any]) -> str:
    """What a feature is called in print: its label, else its first two genes, else its number."""
    if has_label(node):
        return str(node["label"])
    genes = gene_list(node.get("top_genes"))
    return ", ".join(genes[:2]) if genes else f"feature {node['feature']}"


def has_label(node: dict[str, Any]) -> bool:
    """Whether a gene set names the feature; without one, its label only says that there is none."""
    return node["n_terms"] > 0 and isinstance(node["label"], str) and bool(node["label"])


def described(nodes: pd.DataFrame) -> dict[Key, str]:
    """Features as a table cell says them: where one is, what it is called, and on a second line its first genes."""
    found = {}
    for node in records(nodes):
        genes = ", ".join(gene_list(node["top_genes"])[:5])
        found[node["layer"], node["feature"]] = f"L{node['layer']} · {node['feature']}  {node_name(node)}\n{genes}"
    return found


def _layout(sources: list[Key], targets: list[Key], weights: list[float]) -> dict[Key, float]:
    """Height of every feature in 0..1: each moves towards the weighted mean height of its neighbours.

    The barycentre heuristic of Sugiyama, Tagawa and Toda (1981), with edges that may span layers.
    """
    links: dict[Key, list[tuple[Key, float]]] = {}
    for source, target, weight in zip(sources, targets, weights, strict=True):
        links.setdefault(source, []).append((target, weight))
        links.setdefault(target, []).append((source, weight))
    layers: dict[int, list[Key]] = {}
    for key in sorted(links):
        layers.setdefault(key[0], []).append(key)
    height = {key: y for keys in layers.values() for key, y in _spread(keys)}
    for _ in range(SWEEPS):
        for layer in sorted(layers):
            pull = {
                key: sum(w * height[other] for other, w in links[key]) / sum(w for _, w in links[key])
                for key in layers[layer]
            }
            layers[layer].sort(key=lambda key: (pull[key], key))
            height.update(_spread(layers[layer]))
    return height


def _spread(keys: list[Key]) -> list[tuple[Key, float]]:
    return [(key, (i + 0.5) / len(keys)) for i, key in enumerate(keys)]
