"""Circuits for graph tools: NetworkX, Cytoscape, GraphML (Gephi, yEd, igraph), and decoupler's nets."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from scircuit._io import atomic, write_json
from scircuit._tables import write_csv
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.export.format import Format
from scircuit.circuits.export.parts import described, ends, node_id, statistics, strongest, weights

if TYPE_CHECKING:
    import networkx


_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may hold (W3C, production 2)."""


def to_networkx(circuit: Circuit, max_edges: int | None = None) -> "networkx.DiGraph":
    """The circuit, or its `max_edges` edges of largest |d|, as a directed graph; refused without edges.

    Nodes `L<layer>_F<feature>` have `layer, feature, label, genes, is_source` and their counts; edges `weight` (minus
    the mean response, positive = supporting, in units of the target's activation), `sign` (`supporting` or
    `suppressing`) and the statistics of the edge table. No attribute is missing or None.
    """
    import networkx

    edges = strongest(circuit, max_edges)
    graph = networkx.DiGraph(run_id=circuit.run_id)
    graph.add_nodes_from((node_id(key), values) for key, values in described(circuit, edges).items())
    for (source, target), weight, values in zip(ends(edges), weights(edges), statistics(edges), strict=True):
        sign = "supporting" if weight > 0 else "suppressing"
        graph.add_edge(node_id(source), node_id(target), weight=weight, sign=sign, **values)
    return graph


def write_cytoscape(circuit: Circuit, path: str | Path, max_edges: int | None = None) -> None:
    """Write a Cytoscape.js file (`.cyjs`), which Cytoscape opens as a network; see `to_networkx`."""
    import networkx

    graph = to_networkx(circuit, max_edges)
    networkx.set_node_attributes(graph, {name: values["label"] for name, values in graph.nodes.items()}, "name")
    content = networkx.cytoscape_data(graph)
    for edge in content["elements"]["edges"]:
        edge["data"]["interaction"] = edge["data"]["sign"]
    write_json(path, content)


def write_graphml(circuit: Circuit, path: str | Path, max_edges: int | None = None) -> None:
    """Write GraphML; see `to_networkx` for the attributes. Characters that XML has not are left out."""
    import networkx

    graph = to_networkx(circuit, max_edges)
    for values in graph.nodes.values():
        values |= {name: _NO_XML.sub("", text) for name, text in values.items() if isinstance(text, str)}
    with atomic(path) as temporary:
        networkx.write_graphml(graph, temporary)


def decoupler_net(circuit: Circuit, max_edges: int | None = None) -> pd.DataFrame:
    """The circuit as a decoupler `net`: `source, target, weight`, one row per edge.

    Latents are named `L<layer>_F<feature>`, so the net fits a table of cells by latents with such columns.
    Weights are those of `to_networkx`.
    """
    edges = strongest(circuit, max_edges)
    names = [(node_id(source), node_id(target)) for source, target in ends(edges)]
    return pd.DataFrame(names, columns=["source", "target"]).assign(weight=weights(edges))


def write_decoupler(circuit: Circuit, path: str | Path, max_edges: int | None = None) -> None:
    """Write `decoupler_net` as CSV."""
    write_csv(path, decoupler_net(circuit, max_edges))


def write_node_link(circuit: Circuit, path: str | Path, max_edges: int | None = None) -> None:
    """Write node-link JSON; see `to_networkx`.

    The edges stand in it twice, as `links` for d3 and NetworkX before 3.6 and as `edges` for NetworkX since then, so
    that `networkx.node_link_graph(json)` works in each.
    """
    graph = to_networkx(circuit, max_edges)
    edges = [{"source": a, "target": b, **values} for a, b, values in graph.edges(data=True)]
    content = {
        "directed": True,
        "multigraph": False,
        "graph": dict(graph.graph),
        "nodes": [{"id": name, **values} for name, values in graph.nodes.items()],
        "links": edges,
        "edges": edges,
    }
    write_json(path, content)


CYTOSCAPE = Format("cytoscape", "Cytoscape and Cytoscape.js", "circuit.cyjs", write_cytoscape)
GRAPHML = Format("graphml", "Gephi, yEd, igraph", "circuit.graphml", write_graphml)
DECOUPLER = Format("decoupler", "decoupler: a signed network as CSV", "network.csv", write_decoupler)
NODE_LINK = Format("networkx-json", "NetworkX and d3: node-link JSON", "circuit.json", write_node_link)
