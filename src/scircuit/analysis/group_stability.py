"""Stability over groups of cells: whether cell types, donors or batches show the same edges."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import fdtrc

from scircuit.analysis.agreement import agreement, family_size
from scircuit.analysis.nodes import need_columns
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.circuits.schema import ENDS
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.signflip import screen_p

COLUMNS = [
    "group_name", "group", *ENDS, "n_cells", "n_nonzero", "n_pos", "n_neg", "mean_delta", "sd_delta",
    "cohens_d", "p_value",
]  # fmt: skip


def group_stability(
    groups: pd.DataFrame, tests: pd.DataFrame | None = None, rule: EdgeRule = DEFAULT, max_q: float = 0.05
) -> Result:
    """Agreement of the effects measured in different groups of cells.

    Measures per group_name: `<name>_jaccard`, `<name>_r`, `<name>_sign` (means over pairs of groups; nulls: random sets
    of the same sizes, 0, 0.5) and `<name>_heterogeneous_share`: edges over the cells of all groups whose mean response
    differs between groups (Welch's F, BH; null `max_q`). Edges of any one group would not do: they were chosen for
    being large there. A test missing in a group counts as no response there. Table: one row per pair of groups.
    """
    need_columns("table groups", groups, COLUMNS)
    n_tests = family_size(tests, groups)
    measures, tables = [], []
    names = groups["group_name"]
    for name in sorted(names.dropna().unique()):
        mine = (names == name).to_numpy()
        # With one grouping, the table is not copied: it may hold tens of millions of rows.
        rows = groups if mine.all() else groups.loc[mine]
        if rows["group"].nunique() < 2:
            continue
        aligned = _aligned(rows, rule, n_tests)
        pairs = [
            {"group_name": name, "first": a, "second": b}
            | agreement(aligned[a].edge, aligned[b].edge, aligned[a].d, aligned[b].d, n_tests)._asdict()
            for a, b in combinations(aligned, 2)
        ]
        table = pd.DataFrame(pairs)
        tables.append(table)
        n = int((table["n_first"] + table["n_second"] - table["n_both"]).sum())
        means = table[["jaccard", "r", "sign", "expected_jaccard"]].mean()
        nulls = {"jaccard": means["expected_jaccard"], "r": 0.0, "sign": 0.5}
        measures += [Measure(f"{name}_{f}", float(means[f]), null=null, n=n) for f, null in nulls.items()]
        edges = rule.passes(_pooled(list(aligned.values())), n_tests)
        measures.append(_heterogeneity(str(name), list(aligned.values()), edges, max_q))
    if not measures:
        raise ScircuitError("no group_name has two groups; trace with an obs column of at least two values.")
    return QUESTION.answer(measures, pd.concat(tables, ignore_index=True))


class _Group(NamedTuple):
    """What one group of cells says of every test of any group, `[test]`: whether an edge, d, mean, sd, and its cells.

    `counts` int32 `[3, test]` are the cells with a response, a rise, a fall.
    """

    edge: np.ndarray
    d: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    n_cells: np.ndarray
    counts: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """Squared standard error of the mean."""
        return self.sd**2 / np.maximum(self.n_cells, 1)


def _aligned(rows: pd.DataFrame, rule: EdgeRule, n_tests: int | None) -> dict[Any, _Group]:
    """Each group over the union of tests, in one order; a test that a group lacks has no response there."""
    key = np.zeros(len(rows), dtype=np.int64)
    for column in ENDS:
        values = rows[column].to_numpy(np.int64)
        key = key * (int(values.max(initial=0)) + 1) + values
    tests, test = np.unique(key, return_inverse=True)
    _, source = np.unique(
        rows[ENDS[0]].to_numpy(np.int64) << 32 | rows[ENDS[1]].to_numpy(np.int64), return_inverse=True
    )
    source_of_test = np.empty(len(tests), dtype=np.int64)
    source_of_test[test] = source
    group = rows["group"]
    aligned = {}
    for name in sorted(group.dropna().unique()):
        mine = (group == name).to_numpy()
        own, place = rows.loc[mine, COLUMNS[6:]], test[mine]
        edge = np.zeros(len(tests), dtype=bool)
        edge[place] = rule.passes(own, n_tests)
        d, mean, sd = (np.zeros(len(tests), dtype=np.float32) for _ in range(3))
        d[place], mean[place], sd[place] = own["cohens_d"], own["mean_delta"], own["sd_delta"]
        fires = np.zeros(source.max(initial=0) + 1, dtype=np.int32)
        np.maximum.at(fires, source[mine], own["n_cells"].to_numpy(np.int32))
        counts = np.zeros((3, len(tests)), dtype=np.int32)
        counts[:, place] = own[["n_nonzero", "n_pos", "n_neg"]].to_numpy(np.int32).T
        aligned[name] = _Group(edge, d, mean, sd, fires[source_of_test], counts)
    return aligned


def _pooled(groups: list[_Group]) -> dict[str, np.ndarray]:
    """Moments over the cells of all groups, as `EdgeRule.passes` takes them; p by the t form."""
    n = np.maximum(sum(group.n_cells.astype(np.float64) for group in groups), 1)
    total = sum(group.n_cells * group.mean.astype(np.float64) for group in groups)
    square = sum(
        np.maximum(group.n_cells - 1, 0) * group.sd.astype(np.float64) ** 2 + group.n_cells * group.mean**2
        for group in groups
    )
    variance = np.maximum(square - total**2 / n, 0) / np.maximum(n - 1, 1)
    n_nonzero, n_pos, n_neg = np.stack([group.counts for group in groups]).sum(axis=0, dtype=np.int64)
    return {
        "n_cells": n, "n_nonzero": n_nonzero, "n_pos": n_pos, "n_neg": n_neg,
        "cohens_d": total / n / np.where(variance > 0, np.sqrt(variance), np.inf),
        "p_value": screen_p(n_nonzero, total, square),
    }  # fmt: skip


def _heterogeneity(name: str, groups: list[_Group], edges: np.ndarray, max_q: float) -> Measure:
    mean, variance, n = (
        np.array([values[edges] for values in side], dtype=np.float64)
        for side in zip(*((group.mean, group.variance, group.n_cells) for group in groups), strict=True)
    )
    usable = (variance > 0) & (n > 1)
    k = usable.sum(axis=0)
    tested = k > 1
    if not tested.any():
        return Measure(f"{name}_heterogeneous_share", np.nan, null=max_q)
    p = _welch_p(mean[:, tested], variance[:, tested], n[:, tested], usable[:, tested], k[tested])
    q = benjamini_hochberg(p)
    return Measure(f"{name}_heterogeneous_share", float((q < max_q).mean()), null=max_q, n=int(tested.sum()))


def _welch_p(mean: np.ndarray, variance: np.ndarray, n: np.ndarray, usable: np.ndarray, k: np.ndarray) -> np.ndarray:
    """p `[test]` of equal means of k groups of unequal variance (Welch 1951); inputs `[group, test]`.

    Cochran's Q against chi-square takes the variances for known: with 20 cells a group it is too often small.
    """
    weight = np.where(usable, 1 / np.where(usable, variance, 1.0), 0.0)
    total = weight.sum(axis=0)
    between = (weight * (mean - (weight * mean).sum(axis=0) / total) ** 2).sum(axis=0)
    spread = np.where(usable, (1 - weight / total) ** 2 / np.maximum(n - 1, 1), 0.0).sum(axis=0)
    f = between / (k - 1) / (1 + 2 * (k - 2) * spread / (k**2 - 1))
    return fdtrc(k - 1, (k**2 - 1) / (3 * spread), f)


QUESTION = Question(
    asks="Do cell types or donors give the same edges?",
    title="Stability over groups of cells",
    function=group_stability,
    definition="stability-groups/3",
    null_model="edge sets of the same sizes drawn at random from the tests",
    terms=("jaccard", "d"),
    needs=("groups", "tests"),
    marks="Every mark is a pair of groups.",
    table_columns={"groups": COLUMNS},
    redraws=True,
)
