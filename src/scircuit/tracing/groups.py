"""Groups of cells (cell type, donor, batch): their labels, their own moments, and p-values over them as units."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scircuit.cells.tokens import TokenStore
from scircuit.errors import ScircuitError
from scircuit.stats.signflip import can_reach, screen_p, signflip_p
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.moments import Moments
from scircuit.tracing.parts import CellEffects
from scircuit.tracing.tables import Weights, cell_p, effect_rows


@dataclass(frozen=True)
class Grouping:
    """One obs column: its values in order, and for each cell of the store which of them it has (int64 `[cell]`)."""

    name: str
    labels: tuple[str, ...]
    code: np.ndarray = field(repr=False)


def groupings(cells: TokenStore, names: Sequence[str]) -> tuple[Grouping, ...]:
    """The obs columns as groupings, in the order given.

    Raises
    ------
    ScircuitError
        When a column is not there, or holds a missing value.
    """
    out = []
    for name in names:
        if name not in cells.cells:
            known = ", ".join(str(c) for c in cells.cells.columns if c != "_row") or "none"
            raise ScircuitError(f"The cells have no obs column {name!r} to group by; they have {known}.")
        values = cells.cells[name]
        if values.isna().any():
            raise ScircuitError(
                f"obs column {name!r} is missing in {int(values.isna().sum())} cells; fill it in or drop those cells."
            )
        labels, code = np.unique(values.astype(str).to_numpy(dtype=str), return_inverse=True)
        out.append(Grouping(name, tuple(labels.tolist()), code.astype(np.int64)))
    return tuple(out)


def unit_p(moments: Moments, n_units: int, retention: float, seed: int) -> np.ndarray:
    """p `[intervention, latent]` by flipping the sums of whole units (donors, batches).

    `moments` has one row per (intervention, unit). As over cells: the sign-flip itself wherever it can be as small as
    `retention`, its t form elsewhere (`stats.signflip`).
    """
    total = moments.arrays()["total"]
    sums = total.reshape(-1, n_units, total.shape[1])
    nonzero = (sums != 0).sum(axis=1)
    squares = (sums**2).sum(axis=1)
    p = screen_p(nonzero, sums.sum(axis=1), squares)
    row, latent = np.nonzero(can_reach(retention, nonzero, sums.sum(axis=1), squares))
    rng = np.random.default_rng(seed)
    for start in range(0, len(row), 20_000):
        block = slice(start, start + 20_000)
        p[row[block], latent[block]] = signflip_p(sums[row[block], :, latent[block]], rng, draws=1000)
    return p


def group_table(
    layer: int,
    target: int,
    interventions: tuple[Intervention, ...],
    grouping: Grouping,
    moments: Moments,
    effects: CellEffects,
    overall: pd.DataFrame,
    *,
    retention: float,
    seed: int,
    weights: Weights,
) -> pd.DataFrame:
    """Rows of `groups.parquet` for one source block, target layer and grouping.

    Ablations (kind `latent`) only. A test appears, in every group with a response, if its p is at most
    `retention` in any group or among all cells (`overall`, the block's effect table). p within a group is over
    its cells; by the t form where per-cell responses were not kept (local engine).
    """
    n_groups = len(grouping.labels)
    fields = {
        name: values.reshape(-1, n_groups, *values.shape[1:]) for name, values in moments.arrays().items()
    }  # [intervention, group, ...]
    per_group, p = [], []
    kept = _retained(interventions, overall, fields["total"].shape[2])
    for g in range(n_groups):
        m = {name: values[:, g] for name, values in fields.items()}
        mine = effects.take(grouping.code[effects.cell] == g)
        p.append(cell_p(m, mine, retention=retention, seed=seed))
        kept |= (p[g] <= retention) & (m["n_nonzero"] > 0)
        per_group.append(m)
    kept[[i.kind != "latent" for i in interventions]] = False
    tables = []
    for label, m, p_group in zip(grouping.labels, per_group, p, strict=True):
        shown = kept & (m["n_nonzero"] > 0)
        table = effect_rows(layer, target, interventions, m, p_group, shown, weights).drop(columns=["kind", "draw"])
        table.insert(0, "group_name", grouping.name)
        table.insert(1, "group", label)
        tables.append(table)
    return pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)


def _retained(interventions: tuple[Intervention, ...], overall: pd.DataFrame, n_latents: int) -> np.ndarray:
    """Which (intervention, latent) of kind `latent` are in the effect table of all cells, bool."""
    row_of = {i.features[0]: row for row, i in enumerate(interventions) if i.kind == "latent"}
    mine = overall[overall["kind"] == "latent"]
    kept = np.zeros((len(interventions), n_latents), dtype=bool)
    kept[mine["source_feature"].map(row_of).to_numpy(np.int64), mine["target_feature"].to_numpy(np.int64)] = True
    return kept
