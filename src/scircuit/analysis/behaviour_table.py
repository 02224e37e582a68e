"""What the questions about a circuit as a whole read of `trace/faithfulness.parquet`."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import need_columns
from scircuit.circuits.variants import COLUMNS
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import Interval, cluster_bootstrap, jackknife_interval

WEAK = 2.0
"""Standard errors of m(model) - m(all silenced), below which there is nothing to carry."""
FEW = 20
"""Cells or donors below which an interval is by t."""
HOW = "run `scircuit faithfulness CONFIG`"


class Readings(NamedTuple):
    """One behaviour: the rows of the variants, and each cell's donor or batch (or itself) as a number."""

    name: str
    rows: pd.DataFrame
    cluster: pd.Series
    """int64 by cell."""
    ablation: str
    """By which most was done: the circuit's, if not said otherwise."""
    unit: str
    """What the interval is over: `cells`, or `donors` where the trace took such for units."""

    @classmethod
    def of(cls, table: pd.DataFrame, behaviour: str | None = None) -> "Readings":
        """The rows of a behaviour, the first by default."""
        need_columns("faithfulness table", table, COLUMNS, HOW)
        known = list(dict.fromkeys(table["behaviour"].astype(str)))
        name = behaviour or known[0]
        if name not in known:
            raise ScircuitError(f"{name} was not measured; the table has {', '.join(known)}.")
        mine = table[table["behaviour"].astype(str) == name]
        texts = ["behaviour", "kind", "unit", "order", "ablation", "error"]
        mine = mine.astype(dict.fromkeys(texts, str))
        cells = mine[mine["kind"] == "model"].set_index("cell")["group"].astype(str)
        grouped = bool((cells != "").any())
        code = pd.factorize(cells)[0] if grouped else np.arange(len(cells))
        by = mine.loc[mine["kind"] == "circuit", "ablation"].iloc[0]
        return cls(name, mine, pd.Series(code, cells.index), by, "donors" if grouped else "cells")

    def values(self, kind: str, ablation: str = "", error: str = "kept") -> pd.Series:
        """The readings of a kind by cell; of one variant, or of all of that kind one after another."""
        rows = self.rows[self.rows["kind"] == kind]
        if kind != "model":
            rows = rows[(rows["ablation"] == (ablation or self.ablation)) & (rows["error"] == error)]
        return rows.set_index("cell")["value"]

    def by_draw(self, kind: str) -> pd.DataFrame:
        """Of random circuits: `[cell, draw]`."""
        rows = self.rows[self.rows["kind"] == kind]
        return rows.pivot(index="cell", columns="draw", values="value").reindex(self.cluster.index)

    def by_latent(self, kind: str) -> pd.DataFrame:
        """Of single latents: `[cell, (layer, feature)]`."""
        rows = self.rows[self.rows["kind"] == kind]
        return rows.pivot(index="cell", columns=["layer", "feature"], values="value").reindex(self.cluster.index)

    def sums(self, *columns: pd.Series) -> np.ndarray:
        """Per cell readings added up in each cluster, float64 `[cluster, column]`."""
        wide = np.column_stack([column.reindex(self.cluster.index).to_numpy(np.float64) for column in columns])
        out = np.zeros((int(self.cluster.max()) + 1, wide.shape[1]))
        np.add.at(out, self.cluster.to_numpy(), wide)
        return out

    def refuse_if_weak(self, ablation: str = "", error: str = "kept") -> None:
        """Refuse where silencing every latent does not move the behaviour: shares of nothing mean nothing."""
        gap = (self.values("model") - self.values("empty", ablation, error)).groupby(self.cluster).mean().to_numpy()
        n = len(gap)
        spread = float(gap.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf
        if not abs(float(gap.mean())) > WEAK * spread:
            raise ScircuitError(
                f"silencing every latent changes {self.name} by {gap.mean():.3g}, within {WEAK:g} standard errors "
                f"({spread:.2g}), so there is nothing that a circuit could carry; take more cells, another "
                "behaviour or the other ablation (--ablation)."
            )


def carried(totals: np.ndarray) -> np.ndarray:
    """(set - silenced) / (model - silenced) of totals `[..., 3]` (set, silenced, model); NaN where undefined."""
    top, bottom = totals[..., 0] - totals[..., 1], totals[..., 2] - totals[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom != 0, top / bottom, np.nan)


def share_carried(
    readings: Readings, of: pd.Series, rng: np.random.Generator, draws: int, ablation: str = "", error: str = "kept"
) -> Interval:
    """The share of the behaviour that a set carries, with its interval over cells or donors, the whole ratio drawn."""
    sums = readings.sums(of, readings.values("empty", ablation, error), readings.values("model"))
    return over_units(sums, carried, rng, draws)


def over_units(
    sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator, draws: int
) -> Interval:
    """A statistic of the totals of `sums` `[cell or donor, component]`: of few a bootstrap is too narrow."""
    if len(sums) < FEW:
        return jackknife_interval(sums, statistic)
    return cluster_bootstrap(sums, statistic, rng, draws)
