"""Circuits in the formats of other tools, and other people's graphs as tables; without torch."""

from scircuit.circuits.export.graphs import decoupler_net, to_networkx, write_cytoscape, write_graphml
from scircuit.circuits.export.neuronpedia import read_neuronpedia, write_neuronpedia

__all__ = [
    "decoupler_net",
    "read_neuronpedia",
    "to_networkx",
    "write_cytoscape",
    "write_graphml",
    "write_neuronpedia",
]
