"""Stability over cells: split halves, bootstrap, and how many cells the edges need."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit.analysis.agreement import Agreement, CellEffects, agree, called
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.build import DEFAULT, EdgeRule
from scircuit.errors import ScircuitError

_FIELDS = ("jaccard", "r", "sign")


def stability(
    effects: pd.DataFrame,
    source_cells: pd.DataFrame,
    rule: EdgeRule = DEFAULT,
    n_cells: Sequence[int] = (10, 20, 40, 80, 160),
    n_draws: int = 50,
    seed: int = 0,
) -> Result:
    """Whether other cells would have given the same edges.

    Parameters
    ----------
    effects, source_cells : DataFrame
        `trace/cell_effects.parquet` (the ends, `cell, delta`; zeros may be left out) and
        `trace/source_cells.parquet` (`source_layer, source_feature, cell`) of the sources whose
        responses were kept cell by cell.
    rule : EdgeRule
        What counts as an edge; every subset of cells is tested as a family of its own.
    n_cells : list of int
        Sizes of random subsets that are compared with all cells; larger ones than there are are skipped.
    n_draws : int
        Random halves, subsets of each size, and bootstrap samples.
    seed : int

    Returns
    -------
    Result
        Measures `split_half_jaccard` (null: edge sets of the same sizes at random), `split_half_r` (of d
        over the edges of either half; null 0), `split_half_sign` (null 0.5), `bootstrap_jaccard`,
        `bootstrap_r` (against all cells), `replicated_share` (edges of all cells found in at least half
        of the bootstrap samples). Intervals are the 2.5 and 97.5 % points over draws: the spread of the
        partition, not a confidence interval. Table: one row per (comparison, number of cells): means
        over draws.

    Raises
    ------
    ScircuitError
        With fewer than four cells.
    """
    data = CellEffects(effects, source_cells)
    total = len(data.cells)
    if total < 4:
        raise ScircuitError(f"responses of {total} cells cannot be split; keep at least 4 cells.")
    rng = np.random.default_rng(seed)
    whole = data.moments(np.ones(total))
    edges = called(whole, rule)
    halves, samples, found = [], [], np.zeros(len(edges))
    for _ in progress(range(n_draws), desc="stability"):
        half = _subset(total, total // 2, rng)
        halves.append(agree(data.moments(half), data.moments(1 - half), rule))
        sample = data.moments(np.bincount(rng.integers(0, total, total), minlength=total))
        samples.append(agree(whole, sample, rule))
        found += called(sample, rule)
    rows = [_row("split_half", total // 2, halves), _row("bootstrap", total, samples)]
    for size in n_cells:
        if size < total:
            draws = [agree(data.moments(_subset(total, size, rng)), whole, rule) for _ in range(n_draws)]
            rows.append(_row("subset", size, draws))
    replicated = (found[edges] >= n_draws / 2).mean() if edges.any() else np.nan
    n = int(edges.sum())
    null = _mean(h.expected_jaccard for h in halves)
    measures = [
        _spread("split_half_jaccard", [h.jaccard for h in halves], n, null),
        _spread("split_half_r", [h.r for h in halves], n, 0.0),
        _spread("split_half_sign", [h.sign for h in halves], n, 0.5),
        _spread("bootstrap_jaccard", [s.jaccard for s in samples], n),
        _spread("bootstrap_r", [s.r for s in samples], n, 0.0),
        Measure("replicated_share", float(replicated), n=n),
    ]
    return Result.of(
        "stability",
        "stability-cells/1",
        measures,
        pd.DataFrame(rows),
        "edge sets of the same sizes drawn at random from the tests",
        ["jaccard", "d"],
    )


def _subset(total: int, size: int, rng: np.random.Generator) -> np.ndarray:
    weight = np.zeros(total, dtype=np.int64)
    weight[rng.choice(total, size, replace=False)] = 1
    return weight


def _row(comparison: str, size: int, draws: Sequence[Agreement]) -> dict[str, object]:
    means = {name: _mean([getattr(d, name) for d in draws]) for name in (*_FIELDS, "n_first", "n_both")}
    return {"comparison": comparison, "n_cells": size, "n_draws": len(draws)} | means


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else np.nan


def _spread(name: str, values: Sequence[float], n: int, null: float = np.nan) -> Measure:
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return Measure(name, np.nan, null=null, n=n)
    low, high = np.quantile(known, [0.025, 0.975])
    return Measure(name, float(np.mean(known)), float(low), float(high), null, n=n)
