"""From the parts of a trace, summed block by block in order, to its tables."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scircuit._tables import write_parquet
from scircuit.circuits.schema import P_UNSKEWED, UNSKEWED_BY
from scircuit.circuits.specificity import merge_scales
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.groups import group_table, over_units
from scircuit.tracing.moments import merge
from scircuit.tracing.parts import CellEffects, Part, Unit, source_blocks
from scircuit.tracing.setup import Setup
from scircuit.tracing.tables import effect_table, scale_table, weights_of


class Tables(NamedTuple):
    """The tables of a trace and the forwards that they took.

    `effects`, `tests`, the effects per group of cells (`groups`, None where no grouping was asked for), and the sums
    over decoys (`scales`). Files,
    because they grow with the cells: per-cell responses (`cells`) and the cells in which each source fires
    (`source_cells`).
    """

    effects: pd.DataFrame
    tests: pd.DataFrame
    cells: Path
    source_cells: Path
    groups: pd.DataFrame | None
    scales: pd.DataFrame
    n_clean: int
    n_ablated: int

    def write(self, folder: Path) -> None:
        """One Parquet file each, whole or not at all; the files are moved."""
        for name, table in self._frames().items():
            if table is not None:
                write_parquet(folder / f"{name}.parquet", table)
        os.replace(self.cells, folder / "cell_effects.parquet")
        os.replace(self.source_cells, folder / "source_cells.parquet")

    def files(self) -> list[str]:
        """Names of the files that `write` leaves."""
        here = [name for name, table in self._frames().items() if table is not None]
        return [f"{name}.parquet" for name in (*here, "cell_effects", "source_cells")]

    def _frames(self) -> dict[str, pd.DataFrame | None]:
        return {"effects": self.effects, "tests": self.tests, "groups": self.groups, "scales": self.scales}


class Assembly:
    """Tables of a setup from the parts in a folder, block of sources by block of sources as they become whole.

    Never more than the sums of two parts at one target layer are in memory, however many cells there are.
    """

    def __init__(self, setup: Setup, parts: Path) -> None:
        self._setup, self._parts = setup, parts
        units = setup.units()
        self._todo = source_blocks(units)
        self._missing = {unit.name for unit in units}
        self._effects: list[pd.DataFrame] = []
        self._tests: list[pd.DataFrame] = []
        self._groups: list[pd.DataFrame] = []
        self._scales: list[pd.DataFrame] = []
        self._counts = np.zeros(2, dtype=np.int64)
        self._cells = _Rows(parts / "cell_effects.parquet")
        self._fired = _Rows(parts / "source_cells.parquet")

    def add(self, unit: Unit) -> bool:
        """A part has become whole; True where that completed a block, whose statistics are now in the tables.

        Blocks are taken in their order, so that the tables do not depend on the order in which parts come.
        """
        self._missing.discard(unit.name)
        before = len(self._todo)
        while self._todo and not any(member.name in self._missing for member in self._todo[0]):
            self._block(self._todo.pop(0))
        return len(self._todo) < before

    def n_edges(self) -> int:
        """Edges among the blocks so far, by the rule of the settings; q over the tests so far."""
        if not self._effects:
            return 0
        columns = ["kind", "cohens_d", "p_value", "n_cells", "n_nonzero", "n_pos", "n_neg", *UNSKEWED_BY, P_UNSKEWED]
        e = pd.concat([table[table.columns.intersection(columns)] for table in self._effects], ignore_index=True)
        e = e[e["kind"] == "latent"]
        n_tests = sum(int(t.loc[t["kind"] == "latent", "n_tests"].sum()) for t in self._tests)
        return int(self._setup.settings.rule.passes(e, n_tests).sum())

    def tables(self) -> Tables:
        """All of it, once every part was added."""
        assert not self._todo, "parts are missing"
        effects = _concat(self._effects)
        effects["engine"] = pd.Categorical([self._setup.engine] * len(effects), categories=["exact", "local"])
        return Tables(
            effects=effects,
            tests=_concat(self._tests),
            cells=self._cells.close(),
            source_cells=self._fired.close(),
            groups=_concat(self._groups) if self._groups else None,
            scales=merge_scales(self._scales),
            n_clean=int(self._counts[0]),
            n_ablated=int(self._counts[1]),
        )

    def _block(self, members: Sequence[Unit]) -> None:
        read = [Part.read(self._parts / unit.name) for unit in members]
        self._counts += np.array([[p.n_clean, p.n_ablated] for p in read]).sum(axis=0)
        layer, todo = members[0].layer, members[0].interventions
        self._fired.write(_source_cells(layer, todo, np.concatenate([p.acted for p in read], axis=1)))
        for target in self._setup.targets[layer]:
            self._pair(layer, target, todo, read)

    def _pair(self, layer: int, target: int, todo: tuple[Intervention, ...], read: Sequence[Part]) -> None:
        """One block of sources at one target layer."""
        s, saes, groupings = self._setup.settings, self._setup.saes, self._setup.groupings
        rule: dict[str, Any] = {"retention": s.retention, "seed": s.seed}
        found = CellEffects.concatenate([p.cell_effects[target] for p in read])
        grouped = [merge(p.groups[target][n] for p in read) for n in range(len(groupings))]
        whole = None
        for grouping, sums in zip(groupings, grouped, strict=True):
            if grouping.name == s.units:
                whole = over_units(sums, len(grouping.labels), **rule)
        moments = merge(part.moments[target] for part in read)
        pushes = np.sum([part.pushes for part in read], axis=0)
        n_cells = moments.n_cells.cpu().numpy()
        weights = weights_of(todo, pushes, n_cells, saes[layer], saes[target])
        self._scales.append(scale_table(layer, target, todo, moments.arrays(), weights))
        table, made = effect_table(
            layer, target, todo, moments, found, **rule, weights=weights, over_units=whole,
            kept_abs_d=self._setup.kept_abs_d,
        )  # fmt: skip
        for grouping, sums in zip(groupings, grouped, strict=True):
            if grouping.name in s.groups:
                self._groups.append(
                    group_table(layer, target, todo, grouping, sums, found, table, **rule, weights=weights)
                )
        self._effects.append(table)
        self._tests.append(made)
        self._cells.write(_kept_cells(table, found, todo, layer, target))


class _Rows:
    """A Parquet file that grows by tables of the same columns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pd.DataFrame) -> None:
        """Append; the first table fixes the types, empty ones among the others are left out."""
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, pa.Table.from_pandas(rows, preserve_index=False).schema)
        if len(rows):
            self._writer.write_table(pa.Table.from_pandas(rows, self._writer.schema, preserve_index=False))

    def close(self) -> Path:
        """End the file."""
        assert self._writer is not None
        self._writer.close()
        return self._path


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
