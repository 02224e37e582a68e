"""Stage `confirmation`: the circuit's edges measured again in cells of their own split."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scircuit.circuits.circuit import Circuit
from scircuit.runs.run import Run
from scircuit.runs.tokens import drawn_cells
from scircuit.tracing.replicate import replicate
from scircuit.tracing.setup import Setup

log = logging.getLogger(__name__)
_SOURCE = ["source_layer", "source_feature"]


def run_confirmation(run: Run, setup: Setup, circuit: Circuit, client: Any = None) -> None:
    """Write `confirmation/`: the edges of at most `max_sources` sources per layer, in the `confirmation` cells.

    Nothing is written with `confirmation.n_cells = 0`. `client` as in `run_trace`.
    """
    c = run.config.confirmation
    if c.n_cells == 0 or run.done("confirmation"):
        return
    cells = setup.cells.subset(drawn_cells(setup.cells, run.config, "confirmation", c.n_cells, 6))
    edges = some_sources(circuit.edges, c.max_sources, run.config.seed)
    if len(edges) < len(circuit.edges):
        log.info("%d of %d edges are measured again (confirmation.max_sources)", len(edges), len(circuit.edges))
    replicate(
        replace(setup, cells=cells), edges, run.stage("confirmation"),
        provenance={"n_circuit_edges": len(circuit.edges), "circuit": circuit.run_id}, client=client,
    )  # fmt: skip


def some_sources(edges: pd.DataFrame, n: int | None, seed: int) -> pd.DataFrame:
    """The edges of at most `n` sources per layer, drawn at random among those that have one."""
    if n is None:
        return edges
    rng = np.random.default_rng([seed, 7])
    sources = edges[_SOURCE].drop_duplicates().sort_values(_SOURCE)
    kept = [part.iloc[np.sort(rng.permutation(len(part))[:n])] for _, part in sources.groupby("source_layer")]
    return edges.merge(pd.concat(kept), on=_SOURCE) if kept else edges
