"""The circuit: edges, nodes, controls and provenance, assembled from a trace; without torch."""
