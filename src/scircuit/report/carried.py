"""What of a run travels with its page: every edge of the circuit, the latents at their ends, what is known of both."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit._version import __version__
from scircuit.analysis.nodes import NodeIndex
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import GRADES
from scircuit.errors import ScircuitError
from scircuit.report.carried_edges import edge_columns, edge_parts
from scircuit.report.carried_latents import latent_columns, latent_parts
from scircuit.report.packing import Words, pack, whole

MOST_EDGES = 300_000
"""Edges that travel with a page, of all its runs together; of a larger circuit the strongest of the strictest grade."""


class Carried(NamedTuple):
    """The edges and latents that travel. `sources`, `targets` are the rows of `nodes` at the ends of the edges."""

    edges: pd.DataFrame
    nodes: pd.DataFrame
    sources: np.ndarray
    targets: np.ndarray
    n_edges: int
    """Edges of the whole circuit."""


def packed(run: Artefacts, n_runs: int = 1) -> str:
    """The run as the text that the page's script reads; `n_runs` share what a page may hold."""
    circuit = _widest(run)
    held = _held(circuit, MOST_EDGES // n_runs)
    words, facts = Words(), _facts(run, circuit, held)
    columns = {
        "e.source": whole(held.sources),
        "e.target": whole(held.targets),
        **edge_columns(held.edges),
        **latent_columns(held.nodes, circuit.terms, words),
    }
    columns |= edge_parts(run, circuit, held.edges, words, facts, n_runs)
    columns |= latent_parts(run, held.nodes, words, facts)
    return pack(columns, {**facts, "words": words.listed})


def _widest(run: Artefacts) -> Circuit:
    """The circuit of the widest grade that the run holds: the page opens at its own, and its filter reaches down."""
    shown = run.circuit()
    if shown.widest == GRADES[0]:
        return shown
    try:
        return run.circuit(grade=GRADES[0])
    except ScircuitError:  # one that was handed on without its wider edges
        return shown


def _held(circuit: Circuit, most: int) -> Carried:
    edges = circuit.edges
    strength = edges["cohens_d"].abs().to_numpy(dtype=float)
    if len(edges) > most:
        grade = edges["grade"].cat.codes.to_numpy() if "grade" in edges else np.zeros(len(edges))
        kept = np.sort(np.lexsort((-strength, -grade))[:most])
        edges, strength = edges.iloc[kept], strength[kept]
    edges = edges.iloc[np.argsort(-strength, kind="stable")].reset_index(drop=True)
    index = NodeIndex.of(circuit.nodes)
    sources, targets = index.sources(edges), index.targets(edges)
    used = np.unique(np.concatenate([sources, targets]))
    nodes = circuit.nodes.iloc[used].reset_index(drop=True)
    ends = np.searchsorted(used, sources), np.searchsorted(used, targets)
    return Carried(edges, nodes, *ends, len(circuit.edges))


def _facts(run: Artefacts, circuit: Circuit, held: Carried) -> dict[str, Any]:
    told = [str(row["grade"]) for row in circuit.provenance.get("grades", [])] or [GRADES[0]]
    traced = pd.concat([held.nodes["layer"], circuit.tests["source_layer"], circuit.tests["target_layer"]])
    return {
        "version": __version__,
        "name": run.name,
        "model": run.model_name,
        "run_id": circuit.run_id,
        "n_edges": held.n_edges,
        "grades": told[GRADES.index(circuit.widest) :],
        "shown": run.circuit().widest,
        "layers": sorted({int(layer) for layer in traced.unique()}),
    }
