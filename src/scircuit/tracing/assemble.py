"""From the parts of a trace, summed block by block in order, to its tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit._io import atomic
from scircuit._progress import progress
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.groups import Grouping, group_table, unit_p
from scircuit.tracing.interventions import Intervention
from scircuit.tracing.moments import merge
from scircuit.tracing.parts import CellEffects, Part, Unit
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tables import effect_table, weight_effects


class Tables(NamedTuple):
    """The tables of a trace and the forwards that they took.

    `effects`, `tests`, per-cell responses (`cells`), the cells in which each source fires (`source_cells`), and
    the effects per group of cells (`groups`, None where no grouping was asked for).
    """

    effects: pd.DataFrame
    tests: pd.DataFrame
    cells: pd.DataFrame
    source_cells: pd.DataFrame
    groups: pd.DataFrame | None
    n_clean: int
    n_ablated: int

    def write(self, folder: Path) -> None:
        """One Parquet file each, whole or not at all."""
        tables = {
            "effects": self.effects,
            "tests": self.tests,
            "cell_effects": self.cells,
            "source_cells": self.source_cells,
            "groups": self.groups,
        }
        for name, table in tables.items():
            if table is not None:
                with atomic(folder / f"{name}.parquet") as path:
                    table.to_parquet(path, index=False)


def assemble(
    parts: Path,
    units: Sequence[Unit],
    saes: Mapping[int, SparseAutoencoder],
    targets: Mapping[int, Sequence[int]],
    settings: TraceSettings,
    engine: str,
    groupings: Sequence[Grouping] = (),
) -> Tables:
    """Tables of all units, whose parts lie in `parts`; one block of sources in memory at a time."""
    effects, tests, per_cell, fired, of_groups = [], [], [], [], []
    counts = np.zeros(2, dtype=np.int64)
    blocks: dict[tuple[int, int], list[Unit]] = {}
    for unit in units:
        blocks.setdefault((unit.layer, unit.source_block), []).append(unit)
    for (layer, _), members in progress(blocks.items(), desc="statistics", unit="block"):
        read = [Part.read(parts / unit.name) for unit in members]
        counts += np.array([[p.n_clean, p.n_ablated] for p in read]).sum(axis=0)
        todo = members[0].interventions
        fired.append(_source_cells(layer, todo, np.concatenate([p.acted for p in read], axis=1)))
        for target in targets[layer]:
            found = CellEffects.concatenate([p.cell_effects[target] for p in read])
            grouped = [merge([p.groups[target][n] for p in read]) for n in range(len(groupings))]
            rule: dict[str, Any] = {"retention": settings.retention, "seed": settings.seed}
            weights = weight_effects(todo, saes[layer], saes[target])
            p = None
            for grouping, sums in zip(groupings, grouped, strict=True):
                if grouping.name == settings.units:
                    p = unit_p(sums, len(grouping.labels), **rule)
            moments = merge([part.moments[target] for part in read])
            table, made = effect_table(layer, target, todo, moments, found, **rule, weights=weights, p=p)
            for grouping, sums in zip(groupings, grouped, strict=True):
                if grouping.name in settings.groups:
                    of_groups.append(
                        group_table(layer, target, todo, grouping, sums, found, table, **rule, weights=weights)
                    )
            effects.append(table)
            tests.append(made)
            per_cell.append(_kept_cells(table, found, todo, layer, target))
    table = _concat(effects)
    table["engine"] = pd.Categorical([engine] * len(table), categories=["exact", "local"])
    return Tables(
        effects=table,
        tests=_concat(tests),
        cells=_concat(per_cell),
        source_cells=_concat(fired),
        groups=_concat(of_groups) if of_groups else None,
        n_clean=int(counts[0]),
        n_ablated=int(counts[1]),
    )


def _source_cells(layer: int, todo: tuple[Intervention, ...], acted: np.ndarray) -> pd.DataFrame:
    """Cells in which each source fires, whose ablations acted there; by source, then cell."""
    is_source = np.array([i.kind == "latent" for i in todo])
    row, cell = acted[:, is_source[acted[0]]]
    feature = np.array([i.features[0] for i in todo], dtype=np.int32)[row]
    order = np.lexsort((cell, feature))
    return pd.DataFrame(
        {
            "source_layer": np.full(len(order), layer, dtype=np.int16),
            "source_feature": feature[order],
            "cell": cell[order],
        }
    )


def _concat(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows; empty tables are left out, whose column types would otherwise be guessed."""
    return pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)


def _kept_cells(
    table: pd.DataFrame, found: CellEffects, todo: tuple[Intervention, ...], layer: int, target: int
) -> pd.DataFrame:
    """Per-cell responses of the retained tests of the sources' own ablations."""
    row_of = {i.features[0]: row for row, i in enumerate(todo) if i.kind == "latent"}
    mine = table[table["kind"] == "latent"]
    width = int(found.latent.max(initial=0)) + 1
    wanted = mine["source_feature"].map(row_of).to_numpy(np.int64) * width + mine["target_feature"].to_numpy(np.int64)
    chosen = np.isin(found.row.astype(np.int64) * width + found.latent, wanted)
    feature = np.array([i.features[0] for i in todo], dtype=np.int32)
    return pd.DataFrame(
        {
            "source_layer": np.full(int(chosen.sum()), layer, dtype=np.int16),
            "source_feature": feature[found.row[chosen]],
            "target_layer": np.full(int(chosen.sum()), target, dtype=np.int16),
            "target_feature": found.latent[chosen],
            "cell": found.cell[chosen],
            "delta": found.delta[chosen],
        }
    )
