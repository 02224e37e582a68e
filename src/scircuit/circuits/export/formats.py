"""A finished run in the formats of other tools. No torch."""

from pathlib import Path

import pandas as pd

from scircuit._io import atomic, write_json
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.export import decoupler_net, to_networkx, write_cytoscape, write_graphml, write_neuronpedia
from scircuit.errors import ScircuitError

FORMATS = ("neuronpedia", "cytoscape", "graphml", "decoupler", "networkx-json")
_FILES = {
    "cytoscape": "circuit.cyjs",
    "graphml": "circuit.graphml",
    "decoupler": "network.csv",
    "networkx-json": "circuit.json",
}


def export(run: str | Path, fmt: str, out: str | Path | None = None, max_edges: int | None = None) -> Path:
    """Write the circuit of a run folder for another tool; returns the file.

    Parameters
    ----------
    run : folder
    fmt : str
        `neuronpedia` (attribution graph with a detail file per latent, for circuit-tracer's viewer), `cytoscape`
        (.cyjs), `graphml` (Gephi, yEd, igraph), `decoupler` (a signed network, CSV) or `networkx-json` (node-link).
    out : path, optional
        File, or folder for neuronpedia; by default under `RUN/export/`.
    max_edges : int, optional
        Only the edges of largest |d|; by default all, but 5,000 for neuronpedia, whose viewer loads no more.

    Raises
    ------
    ScircuitError
        On an unknown format or a folder without a circuit.
    """
    run = Path(run)
    if fmt not in FORMATS:
        raise ScircuitError(f"There is no export format {fmt!r}; choose one of {', '.join(FORMATS)}.")
    circuit = Circuit.read(run / "circuit")
    if fmt == "neuronpedia":
        genes = run / "features" / "genes.parquet"
        slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in str(circuit.provenance.get("name", "circuit")))
        table = pd.read_parquet(genes) if genes.is_file() else None
        return write_neuronpedia(circuit, out or run / "export" / fmt, slug, table, max_edges or 5000)
    path = Path(out) if out else run / "export" / _FILES[fmt]
    if fmt == "cytoscape":
        write_cytoscape(circuit, path, max_edges)
    elif fmt == "graphml":
        write_graphml(circuit, path, max_edges)
    elif fmt == "decoupler":
        with atomic(path) as temporary:
            decoupler_net(circuit, max_edges).to_csv(temporary, index=False)
    else:
        _write_node_link(circuit, path, max_edges)
    return path


def _write_node_link(circuit: Circuit, path: Path, max_edges: int | None) -> None:
    """Node-link JSON as `networkx.node_link_graph(..., edges="links")` and d3 read it."""
    graph = to_networkx(circuit, max_edges)
    content = {
        "directed": True,
        "multigraph": False,
        "graph": dict(graph.graph),
        "nodes": [{"id": name, **values} for name, values in graph.nodes.items()],
        "links": [{"source": a, "target": b, **values} for a, b, values in graph.edges(data=True)],
    }
    write_json(path, content)
