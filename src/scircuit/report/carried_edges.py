"""The edges that travel with a page: what was measured of each, again in other cells, cell by cell, beside decoys."""

from typing import Any

import numpy as np
import pandas as pd

from scircuit._tables import iterate, read_parquet
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.confirmation import found_again
from scircuit.circuits.schema import ENDS, SCALE_KEY, SOURCE
from scircuit.circuits.specificity import is_decoy, typical_of_decoys
from scircuit.report.packing import LONGEST, Words, held_by, power, real, rows_among, starts, whole

MOST_RESPONSES = 12_000_000
"""Responses of single cells that travel with a page, those of the strongest edges."""
STEPS = 127
"""Steps in which a cell's response is told, of the largest of its edge."""

_REAL = (
    "cohens_d", "mean_delta", "consistency", "clean_mean", "clean_sd", "weight_effect", "ci_low", "ci_high", "skewness",
    "effect_sd", "effect_sd_low", "effect_sd_high", "share_lost", "specificity",
)  # fmt: skip
_WHOLE = ("n_cells", "n_nonzero", "n_pos", "n_neg")
_POWER = ("p_value", "q_value", "q_specific")


def edge_columns(edges: pd.DataFrame) -> dict[str, np.ndarray]:
    """The columns of the edge table itself."""
    columns = {f"e.{name}": whole(edges[name]) for name in _WHOLE}
    columns |= {f"e.{name}": real(edges[name]) for name in _REAL if name in edges}
    columns |= {f"e.{name}": power(edges[name]) for name in _POWER if name in edges}
    columns["e.grade"] = whole(edges["grade"].cat.codes) if "grade" in edges else whole(np.zeros(len(edges)))
    return columns


def edge_parts(
    run: Artefacts, circuit: Circuit, edges: pd.DataFrame, words: Words, facts: dict[str, Any], n_runs: int
) -> dict[str, np.ndarray]:
    """What other tables of the run say of these edges; `facts` are told what is not there, and why."""
    return {
        **_again(run, edges),
        **_decoys(run, circuit, edges),
        **_cell_by_cell(run, edges, facts, MOST_RESPONSES // n_runs),
        **_groups(run, edges, words),
        **_path_shares(run, edges),
        **_doses(run, edges, words),
    }


def _again(run: Artefacts, edges: pd.DataFrame) -> dict[str, np.ndarray]:
    """In the confirmation cells; `e.again` is 0 not measured, 1 measured, 2 found again."""
    if not run.has("confirmation"):
        return {}
    table = run.table("confirmation")
    row = rows_among(table, edges, ENDS)
    measured = row >= 0
    again = _taken(pd.Series(found_again(table)), row, 0)
    columns = {"e.again": whole(np.where(measured, 1 + again, 0))}
    for name in ("cohens_d", "mean_delta", "ci_low", "ci_high"):
        columns[f"e.again_{name}"] = real(_taken(table[name], row))
    return columns | {"e.again_q_value": power(_taken(table["q_value"], row))}


def _decoys(run: Artefacts, circuit: Circuit, edges: pd.DataFrame) -> dict[str, np.ndarray]:
    """How far decoys of the edge's push typically move its target, and what those in its source's place did."""
    columns: dict[str, np.ndarray] = {}
    if run.has("scales") and "push_norm" in edges:
        scales = run.table("scales")
        row = rows_among(scales, edges, SCALE_KEY)
        columns["e.decoy_typical"] = real(typical_of_decoys(edges, scales))
        columns["e.n_decoys"] = whole(_taken(scales["n_decoys"], row, 0))
    controls, at = held_by(edges, circuit.controls, ENDS)
    tests = circuit.tests[is_decoy(circuit.tests)]
    draws = tests.groupby(SOURCE)["draw"].nunique().reset_index()
    return columns | {
        "e.n_draws": whole(_taken(draws["draw"], rows_among(draws, edges, SOURCE), 0)),
        "decoys.at": at,
        "decoys.delta": real(controls["mean_delta"]),
    }


def _taken(column: "pd.Series[Any]", row: np.ndarray, missing: float = np.nan) -> np.ndarray:
    """The values of a column at rows, `missing` where a row is -1."""
    values = column.to_numpy(dtype=float)
    return np.where(row >= 0, values[row] if len(values) else missing, missing)


def _cell_by_cell(run: Artefacts, edges: pd.DataFrame, facts: dict[str, Any], most: int) -> dict[str, np.ndarray]:
    """Responses of single cells, smallest first, in steps of the largest; those of 0 are left out."""
    if not run.has("cell_effects"):
        return {}
    if run.n_rows("cell_effects") > LONGEST:
        facts["responses"] = "The table of single cells is too long to travel with a page: trace/cell_effects.parquet."
        return {}
    table = run.table("cell_effects", [*ENDS, "delta"])
    row = rows_among(edges, table, ENDS)
    delta = table["delta"].to_numpy(dtype=float)
    order = np.lexsort((delta, row))
    order = order[np.searchsorted(row[order], 0) :][:most]
    row, delta = row[order], delta[order]
    if len(row) == most:  # the last edge may be cut short
        whole_ones = np.searchsorted(row, row[-1])
        row, delta = row[:whole_ones], delta[:whole_ones]
        facts["responses"] = (
            "Only the strongest edges bring their cells; the others' are in trace/cell_effects.parquet."
        )
    largest = np.zeros(len(edges))
    np.maximum.at(largest, row, np.abs(delta))
    steps = np.rint(STEPS * delta / np.where(largest > 0, largest, 1.0)[row]).astype(np.int8)
    return {"cells.at": starts(row, len(edges)), "cells.step": steps, "e.largest": real(largest)}


def _groups(run: Artefacts, edges: pd.DataFrame, words: Words) -> dict[str, np.ndarray]:
    """The same edge in each group of cells that the trace was asked for."""
    if not run.has("groups") or run.n_rows("groups") > LONGEST:
        return {}
    table = run.table("groups")
    table = table[table["kind"] == "latent"] if "kind" in table else table
    table, at = held_by(edges, table, ENDS)
    return {
        "groups.at": at,
        "groups.name": words.places(table["group_name"].astype(str) + ": " + table["group"].astype(str)),
        "groups.n_cells": whole(table["n_cells"]),
        "groups.cohens_d": real(table["cohens_d"]),
        "groups.mean_delta": real(table["mean_delta"]),
    }


def _path_shares(run: Artefacts, edges: pd.DataFrame) -> dict[str, np.ndarray]:
    """How much of an edge stays at the positions where its source fires, and how much goes through others."""
    if not run.has("path_shares"):
        return {}
    table = run.table("path_shares")
    row = rows_among(table, edges, ENDS)
    return {f"e.{name}": real(_taken(table[name], row)) for name in ("local_share", "context_share")}


def _doses(run: Artefacts, edges: pd.DataFrame, words: Words) -> dict[str, np.ndarray]:
    """What other interventions on the source alone did to the target, where `scircuit probe` was asked for them."""
    tables = [read_parquet(path) for path in sorted((run.root / "probes").glob("*.parquet"))]
    tables = [t for t in tables if {"source", "target", "what", "mean_delta"} <= set(t.columns)]
    if not tables:
        return {}
    table = pd.concat(tables, ignore_index=True)
    alone = table["source"].astype(str).str.fullmatch(r"\d+") & table["what"].isin(["activation", "pre_activation"])
    table = table[alone]
    table = table.assign(source_feature=table["source"].astype("int64"), target_feature=table["target"].astype("int64"))
    table, at = held_by(edges, table, ENDS)
    said = [f"{r.what.replace('_', ' ')}, {r.where}: {r.kind}" for r in iterate(table)]
    return {
        "doses.at": at,
        "doses.name": words.places(said),
        "doses.value": real(pd.to_numeric(table["value"], errors="coerce")),
        "doses.n_cells": whole(table["n_cells"]),
        "doses.mean_delta": real(table["mean_delta"]),
    }
