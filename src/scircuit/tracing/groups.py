"""Groups of cells (cell type, donor, batch): their labels, their own moments, and p-values over them as units."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from scircuit.cells.tokens import TokenStore
from scircuit.errors import ScircuitError
from scircuit.stats.signflip import can_reach, screen_p, signflip_p
from scircuit.stats.skew import unskewed_p
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.moments import Moments
from scircuit.tracing.parts import CellEffects
from scircuit.tracing.tables import OverUnits, Weights, cell_p, effect_rows

FEW_UNITS = 10
"""Units below which p is by t on their means."""


@dataclass(frozen=True)
class Grouping:
    """One obs column: its values in order, and for each cell of the store which of them it has (int64 `[cell]`)."""

    name: str
    labels: tuple[str, ...]
    code: np.ndarray = field(repr=False)


def groupings(cells: TokenStore, names: Sequence[str]) -> tuple[Grouping, ...]:
    """The obs columns as groupings, in the order given."""
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


def over_units(moments: Moments, n_units: int, retention: float, seed: int) -> OverUnits:
    """All that is taken over whole units; `moments` has one row per (intervention, unit)."""
    p = unit_p(moments, n_units, retention, seed)
    return OverUnits(p, unit_half_width(moments, n_units), unit_unskewed_p(moments, n_units))


def unit_p(moments: Moments, n_units: int, retention: float, seed: int) -> np.ndarray:
    """p `[intervention, latent]` with whole units (donors, batches) as what is independent.

    `moments` has one row per (intervention, unit). From `FEW_UNITS` units on by flipping their sums: as over cells the
    sign-flip itself wherever it can be as small as `retention`, its t form elsewhere (`stats.signflip`). Of fewer units
    the sign-flip could give no p below 2^(1 - units), so there it is the one-sample t test of their means.
    """
    fields = moments.arrays()
    sums = fields["total"].reshape(-1, n_units, fields["total"].shape[1])
    if n_units < FEW_UNITS:
        return _t_of_means(sums, fields["n_cells"].reshape(-1, n_units))
    nonzero = (sums != 0).sum(axis=1)
    of_all = nonzero, sums.sum(axis=1), (sums**2).sum(axis=1)
    p = screen_p(*of_all)
    row, latent = np.nonzero(can_reach(retention, *of_all))
    rng = np.random.default_rng(seed)
    for start in range(0, len(row), 20_000):
        block = slice(start, start + 20_000)
        p[row[block], latent[block]] = signflip_p(sums[row[block], :, latent[block]], rng, draws=1000)
    return p


def unit_unskewed_p(moments: Moments, n_units: int) -> np.ndarray:
    """`stats.skew.unskewed_p` `[intervention, latent]` of what `unit_p` tests: the units' sums, or few units' means."""
    fields = moments.arrays()
    values = fields["total"].reshape(-1, n_units, fields["total"].shape[1])
    there = values != 0
    if n_units < FEW_UNITS:
        cells = fields["n_cells"].reshape(-1, n_units, 1)
        values, there = values / np.maximum(cells, 1), np.broadcast_to(cells > 0, values.shape)
    n = there.sum(axis=1).astype(np.float64)
    mean = values.sum(axis=1) / np.maximum(n, 1)
    centred = np.where(there, values - mean[:, None], 0.0)
    square, cube = ((centred**power).sum(axis=1) / np.maximum(n, 1) for power in (2, 3))
    square = np.where(square > 1e-24 * mean**2, square, 0.0)
    skew = np.where(square > 0, cube / np.where(square > 0, square, 1.0) ** 1.5, 0.0)
    return unskewed_p(n, mean, np.sqrt(square * n / np.maximum(n - 1, 1)), skew)


def unit_half_width(moments: Moments, n_units: int) -> np.ndarray:
    """Half of the 95 % interval of the mean over cells, whole units being independent, `[intervention, latent]`.

    By t on what the sums of the units leave over the mean, with a degree of freedom less than there are units with a
    cell (see `stats.resampling.clustered_mean`); NaN with fewer than two.
    """
    fields = moments.arrays()
    sums = fields["total"].reshape(-1, n_units, fields["total"].shape[1])
    cells = fields["n_cells"].reshape(-1, n_units, 1).astype(np.float64)
    n, k = cells.sum(axis=1), (cells > 0).sum(axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        square = np.square(sums - cells * (sums.sum(axis=1) / n)[:, None]).sum(axis=1)
        half = stdtrit(np.maximum(k - 1, 1), 0.975) * np.sqrt(square * k / (k - 1)) / n
    return np.where(k > 1, half, np.nan)


def _t_of_means(sums: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """Two-sided p of the one-sample t of unit means, `[intervention, latent]`; units without a cell take no part.

    `sums` float `[intervention, unit, latent]`, `n_cells` `[intervention, unit]`. 1 where nothing responded, or in one
    unit at most.
    """
    there = (n_cells > 0)[:, :, None]
    k = there.sum(axis=1).astype(np.float64)
    means = np.divide(sums, n_cells[:, :, None], out=np.zeros(sums.shape), where=there)
    mean = means.sum(axis=1) / np.maximum(k, 1)
    square = (np.where(there, means - mean[:, None], 0.0) ** 2).sum(axis=1)
    testable = (k > 1) & (mean != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(mean) * np.sqrt(k * (k - 1) / square)
    return np.where(testable, 2 * stdtr(np.maximum(k - 1, 1), -t), 1.0)


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
