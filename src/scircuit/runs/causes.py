"""Forward passes that single questions ask for on top of a trace: mediators held, sources ablated together."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._sealed import write_sealed
from scircuit._tables import write_parquet
from scircuit.analysis.mediation import candidate_mediators
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.runs.run import Run
from scircuit.runs.tokens import split_cells, traced_cells
from scircuit.tracing.probes.interactions import trace_interactions
from scircuit.tracing.probes.mediation import trace_mediation
from scircuit.tracing.probes.walk import Source
from scircuit.tracing.setup import Setup

log = logging.getLogger(__name__)
SPARE = 50
"""Edges looked at for each that is wanted: some have no latent on a path between their ends."""
_LATENT = re.compile(r"(\d+):(\d+)")


def mediate(
    config: RunConfig,
    edges: Sequence[str] = (),
    *,
    n_edges: int = 20,
    top: int = 5,
    n_cells: int = 50,
) -> Path:
    """Measure which latents carry some edges of a finished run; writes `trace/mediation.parquet`, returns it.

    Edges are written `0:12-3:45` (layer:latent - layer:latent); without any, `n_edges` are drawn with the run's seed
    among those over several layers that have a candidate (`analysis.mediation.candidate_mediators`). Per edge `top`
    mediators are held, and as many random latents. The `n_cells` are discovery and confirmation cells: first those that
    were not traced, so that the edges were not chosen in them.
    """
    run = Run.open(config)
    circuit = run.circuit()
    far = _named_edges(edges, circuit) if edges else _far_edges(circuit, SPARE * n_edges, config.seed)
    candidates = candidate_mediators(circuit, far, top, config.seed)
    if candidates.empty:
        raise ScircuitError(
            "no latent lies on an edge from a source and on one to its target; trace more source layers, so that "
            "latents between the ends of an edge are sources too."
        )
    chosen = candidates[ENDS].drop_duplicates()
    if not edges and len(chosen) > n_edges:
        chosen = chosen.iloc[np.sort(np.random.default_rng([config.seed, 5]).choice(len(chosen), n_edges, False))]
    setup, n_new = _in_fresh_cells(run, n_cells)
    log.info("%s edges, %s cells, %s of them not traced before", len(chosen), len(setup.cells), n_new)
    write_parquet(run.path("mediation"), trace_mediation(setup, candidates.merge(chosen, on=ENDS)))
    facts = {"edges": len(chosen), "top": top, "n_cells": len(setup.cells), "n_new_cells": n_new}
    return _recorded(run, "mediation", "named" if edges else "at random", facts)


def combine(config: RunConfig, sets: Sequence[str] = (), *, n_sets: int = 10, size: int = 3, n_cells: int = 50) -> Path:
    """Ablate sets of sources together and apart; writes `trace/interactions.parquet` and `interaction_sets.parquet`.

    Sets are written `0:12+0:33+1:7` (layer:latent). Without any, `n_sets` sets of `size` sources are drawn with the
    run's seed, each among the sources of one target: sources without a target in common cannot interact on it. Cells
    as for `mediate`.
    """
    run = Run.open(config)
    circuit = run.circuit()
    members = [[_latent(text) for text in entry.split("+")] for entry in sets]
    if not sets:
        members = sets_with_a_common_target(circuit, n_sets, size, config.seed)
    setup, n_new = _in_fresh_cells(run, n_cells)
    log.info("%s sets, %s cells, %s of them not traced before", len(members), len(setup.cells), n_new)
    trace_interactions(setup, members).write(run.stage("trace"))
    facts = {"sets": len(members), "n_cells": len(setup.cells), "n_new_cells": n_new}
    return _recorded(run, "interactions", "named" if sets else "at random among sources of one target", facts)


def _recorded(run: Run, table: str, chosen: str, facts: dict[str, int]) -> Path:
    """Say beside a table what was asked for it; returns the table's file."""
    names = [f"{name}.parquet" for name in (table, "interaction_sets") if name == table or table == "interactions"]
    content = {"chosen": chosen, "seed": run.config.seed, **facts}
    write_sealed(run.path(table).with_suffix(".json"), content, names)
    return run.path(table)


def sets_with_a_common_target(circuit: Circuit, n_sets: int, size: int, seed: int) -> list[list[Source]]:
    """Different sets of `size` sources, each drawn among the sources of a target drawn at random."""
    rng = np.random.default_rng([seed, 6])
    groups = [rows for _, rows in circuit.edges.groupby(ENDS[2:]) if len(rows) >= size]
    if not groups:
        raise ScircuitError(
            f"no target has {size} sources, so no set of {size} is worth ablating together; "
            "ask for smaller sets (--size 2), name sets (--set 0:12+0:33), or trace more sources."
        )
    found: list[list[Source]] = []
    for _ in range(20 * n_sets):
        rows = groups[rng.integers(len(groups))][ENDS[:2]].to_numpy(np.int64)
        members = sorted((int(a), int(b)) for a, b in rows[rng.choice(len(rows), size, replace=False)])
        if members not in found:
            found.append(members)
        if len(found) == n_sets:
            break
    return found


def _in_fresh_cells(run: Run, n: int) -> tuple[Setup, int]:
    """Of `n` discovery or confirmation cells, those that the trace left out first; and how many of those there are."""
    setup, config = run.setup(), run.config
    store = setup.cells
    mine = np.concatenate([split_cells(store, split) for split in ("discovery", "confirmation")])
    traced = store.cells["_row"].isin(traced_cells(store, config).cells["_row"]).to_numpy()[mine]
    rng = np.random.default_rng([config.seed, 7])
    order = np.concatenate([rng.permutation(mine[~traced]), rng.permutation(mine[traced])])[:n]
    return replace(setup, cells=store.subset(np.sort(order))), int(min(n, (~traced).sum()))


def _latent(text: str) -> Source:
    found = _LATENT.fullmatch(text.strip())
    if found is None:
        raise ScircuitError(f"{text!r} is no latent; write layer:latent, for example 0:12.")
    return int(found[1]), int(found[2])


def _named_edges(edges: Sequence[str], circuit: Circuit) -> pd.DataFrame:
    rows = []
    for text in edges:
        ends = text.split("-")
        if len(ends) != 2:
            raise ScircuitError(f"{text!r} is no edge; write layer:latent-layer:latent, for example 0:12-3:45.")
        rows.append((*_latent(ends[0]), *_latent(ends[1])))
    asked = pd.DataFrame(rows, columns=ENDS)
    known = pd.MultiIndex.from_frame(asked).isin(pd.MultiIndex.from_frame(circuit.edges[ENDS]))
    if not known.all():
        raise ScircuitError(
            f"the circuit has no edge {edges[int(np.argmin(known))]}; name edges of circuit/edges.parquet."
        )
    return asked


def _far_edges(circuit: Circuit, n: int, seed: int) -> pd.DataFrame:
    """At most `n` of the edges with a layer between their ends, drawn at random."""
    far = circuit.edges["target_layer"].astype(int) - circuit.edges["source_layer"].astype(int) > 1
    if not far.any():
        raise ScircuitError("no edge spans several layers, so there is nothing to mediate; trace more layers.")
    rows = np.flatnonzero(far)
    if len(rows) > n:
        rows = np.sort(np.random.default_rng([seed, 8]).choice(rows, n, replace=False))
    return circuit.edges[ENDS].iloc[rows]
