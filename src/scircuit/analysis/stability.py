"""Stability over cells: split halves, bootstrap, and how many cells the edges need."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit.analysis.agreement import Agreement, CellEffects, agree, family_size
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.errors import ScircuitError

_FIELDS = ("jaccard", "r", "sign")


def stability(
    effects: pd.DataFrame,
    source_cells: pd.DataFrame,
    tests: pd.DataFrame | None = None,
    rule: EdgeRule = DEFAULT,
    n_cells: Sequence[int] = (10, 20, 40, 80, 160),
    n_draws: int = 50,
    seed: int = 0,
) -> Result:
    """Whether other cells would have given the same edges.

    Nulls: of the Jaccard of halves, edge sets of the same sizes at random; of r, 0; of signs, 0.5. `cells_for_jaccard`
    lies between the sizes that were drawn, NaN where none reaches a half; `cells_for_r` is by Spearman and Brown from
    the halves. Intervals are the 2.5 and 97.5 % points over draws: the spread of the partition, not a confidence
    interval. Table: one row per (comparison, number of cells), means over draws: `split` compares two disjoint samples,
    `subset` one with all cells, which holds it, `bootstrap` a resample with all cells.

    `effects`, `source_cells`: of the sources whose responses were kept cell by cell; responses of 0 may be left out.
    `tests`: without it the family of the correction is the kept tests, which calls too much.
    `rule`: what counts as an edge; every subset of cells is corrected as a family of its own.
    `n_cells`: sizes of random subsets; those of which there are too few cells are skipped, and those in which the
      rule can call no edge: that is no instability.
    `n_draws`: random halves, subsets of each size, and bootstrap samples.
    """
    data = CellEffects(effects, source_cells)
    total = len(data.cells)
    if total < 4:
        raise ScircuitError(f"responses of {total} cells cannot be split; keep at least 4 cells.")
    least = fewest_cells(rule)
    if total // 2 < least:
        raise ScircuitError(
            f"the rule calls no edge in fewer than {least} cells, and half of the {total} traced ones are "
            f"{total // 2}; trace {2 * least} cells or more."
        )
    rng = np.random.default_rng(seed)
    whole = data.moments(np.ones(total))
    n_tests = family_size(tests, source_cells)
    edges = rule.passes(whole, n_tests)
    samples, found = [], np.zeros(len(edges))
    sizes = sorted({size for size in n_cells if least <= size < total / 2} | {total // 2})
    splits: dict[int, list[Agreement]] = {size: [] for size in sizes}
    subsets: dict[int, list[Agreement]] = {size: [] for size in sorted(n_cells) if least <= size < total}
    for _ in progress(range(n_draws), desc="stability"):
        sample = data.moments(np.bincount(rng.integers(0, total, total), minlength=total))
        samples.append(agree(whole, sample, rule, n_tests))
        found += rule.passes(sample, n_tests)
        for size, drawn in splits.items():
            first, second = _disjoint(total, size, rng)
            drawn.append(agree(data.moments(first), data.moments(second), rule, n_tests))
        for size, drawn in subsets.items():
            drawn.append(agree(data.moments(_disjoint(total, size, rng)[0]), whole, rule, n_tests))
    halves = splits[total // 2]
    rows = [_row("split", size, drawn) for size, drawn in splits.items()]
    rows += [_row("subset", size, drawn) for size, drawn in subsets.items()]
    table = pd.DataFrame([*rows, _row("bootstrap", total, samples)])
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
        _cells_for_jaccard(table[table["comparison"] == "split"]),
        _cells_for_r(total // 2, halves),
    ]
    return QUESTION.answer(measures, table)


def fewest_cells(rule: EdgeRule) -> int:
    """Cells below which no test passes: as many must respond, and 2^(1 - cells), the least p, must be below `max_q`."""
    of_p = 0 if rule.max_q is None else int(np.floor(1 - np.log2(rule.max_q))) + 1
    return max(rule.min_nonzero, of_p, 2)


def _disjoint(total: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights of two random samples of `size` cells without a cell in common (the second as far as there are cells)."""
    order = rng.permutation(total)
    weights = np.zeros((2, total), dtype=np.int64)
    weights[0, order[:size]] = 1
    weights[1, order[size : 2 * size]] = 1
    return weights[0], weights[1]


def _cells_for_jaccard(splits: pd.DataFrame, wanted: float = 0.5) -> Measure:
    """Least number of cells at which two disjoint samples agree so far, linear between the sizes drawn."""
    name, size, jaccard = "cells_for_jaccard", splits["n_cells"].to_numpy(float), splits["jaccard"].to_numpy(float)
    size, jaccard = size[np.isfinite(jaccard)], jaccard[np.isfinite(jaccard)]
    reached = np.flatnonzero(jaccard >= wanted)
    if not len(reached):
        return Measure(name, np.nan, n=int(size.max(initial=0)), unit_of_n="cells")
    i = int(reached[0])
    cells = size[0] if i == 0 else np.interp(wanted, jaccard[i - 1 : i + 1], size[i - 1 : i + 1])
    return Measure(name, float(cells), n=int(size.max()), unit_of_n="cells")


def _cells_for_r(size: int, halves: Sequence[Agreement], wanted: float = 0.9) -> Measure:
    """Cells for a wanted reliability of d: n (wanted / (1 - wanted)) (1 - r) / r (Spearman 1910, Brown 1910)."""

    def cells(r: np.ndarray) -> np.ndarray:
        return np.where(r > 0, size * wanted / (1 - wanted) * (1 - r) / np.where(r > 0, r, 1.0), np.inf)

    known = np.array([h.r for h in halves if np.isfinite(h.r)])
    name, unit = "cells_for_r", "cells"
    if not len(known):
        return Measure(name, np.nan, n=size, unit_of_n=unit)
    low, high = np.quantile(cells(known), [0.025, 0.975], method="nearest")
    return Measure(name, float(cells(known.mean()[None])[0]), float(low), float(high), n=size, unit_of_n=unit)


def _row(comparison: str, size: int, draws: Sequence[Agreement]) -> dict[str, object]:
    fields = (*_FIELDS, "expected_jaccard", "n_first", "n_both")
    means = {name: _mean([getattr(d, name) for d in draws]) for name in fields}
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


QUESTION = Question(
    asks="Would other cells give the same edges?",
    title="Stability over cells",
    function=stability,
    definition="stability-cells/3",
    null_model="edge sets of the same sizes drawn at random from the tests",
    terms=("jaccard", "d"),
    needs=("cell_effects", "source_cells", "tests"),
    marks="Filled: two samples without a cell in common, means over draws. Hollow, dotted: one sample against all "
    "cells, which hold it. Grey: Jaccard of edge sets drawn at random.",
    words={
        "split_half_jaccard": "edges of two halves of the cells: found in both over found in either (Jaccard)",
        "split_half_r": "edges of two halves of the cells: correlation of d",
        "split_half_sign": "edges of two halves of the cells: share with the same sign",
        "bootstrap_jaccard": "edges of a bootstrap sample and of all cells: Jaccard",
        "bootstrap_r": "edges of a bootstrap sample and of all cells: correlation of d",
        "replicated_share": "edges found again in at least half of the bootstrap samples",
        "cells_for_jaccard": "cells until two samples share half of their edges",
        "cells_for_r": "cells until d of two samples correlates at 0.9",
    },
    redraws=True,
    brief={"n_draws": 10},
)
