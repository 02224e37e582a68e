"""The circuit as a picture: which edges are drawn, in which order the features of a layer stand."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit._tables import iterate, records
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LATENT

LAYER_GAP = 1.0
"""Distance between the columns of two layers, in units of the picture's height."""
CARRIED_EDGES = 2000
"""Edges that travel with the page; the sliders choose among them."""
SHOWN_EDGES = 120
"""Edges drawn when the page opens."""
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


def gene_list(value: Any) -> list[str]:
    """Top genes of a feature as a list of strings, empty when there are none."""
    return [] if value is None or isinstance(value, float) else [str(gene) for gene in value]


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


def payload(circuit: Circuit) -> dict[str, Any]:
    """What the interactive picture needs, as plain JSON values.

    Nodes are listed in the order in which they stand within their layer, edges from the strongest down; both
    refer to each other by position. Missing numbers are None.
    """
    drawn, terms = strongest(circuit.edges, circuit.nodes, CARRIED_EDGES), circuit.terms
    points = records(drawn.nodes.sort_values(["layer", "y"]))
    position = {(row["layer"], row["feature"]): i for i, row in enumerate(points)}
    named = terms.sort_values("q_value").groupby(LATENT, sort=False).head(5) if len(terms) else terms
    by_node: dict[Key, list[list[Any]]] = {}
    for row in iterate(named):
        by_node.setdefault((row.layer, row.feature), []).append([str(row.term), _plain(row.q_value)])
    return {
        "n_edges": len(circuit.edges),
        "shown": SHOWN_EDGES,
        "nodes": [
            {
                "layer": int(row["layer"]),
                "feature": int(row["feature"]),
                "name": row["name"],
                "label": row["label"] if has_label(row) else "",
                "genes": gene_list(row["top_genes"])[:20],
                "frequency": _plain(row["frequency"]),
                "activation": _plain(row["mean_activation"]),
                "source": bool(row["is_source"]),
                "terms": by_node.get((row["layer"], row["feature"]), []),
            }
            for row in points
        ],
        "edges": [
            [
                position[row.source_layer, row.source_feature],
                position[row.target_layer, row.target_feature],
                _plain(row.cohens_d),
                _plain(row.q_value),
                int(row.n_cells),
                int(row.n_nonzero),
                _plain(row.consistency),
                _plain(row.mean_delta),
            ]
            for row in iterate(drawn.edges)
        ],
    }


def _plain(value: Any) -> float | None:
    """Four significant digits, enough for a tooltip; None for what is missing or not finite."""
    number = float(value)
    return float(f"{number:.4g}") if np.isfinite(number) else None
