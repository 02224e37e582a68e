"""Stability over groups of cells: whether cell types, donors or batches show the same edges."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from scircuit.analysis.agreement import agreement, family_size
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.circuits.schema import ENDS
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg

COLUMNS = [
    "group_name", "group", *ENDS, "n_cells", "n_nonzero", "n_pos", "n_neg", "mean_delta", "sd_delta",
    "cohens_d", "p_value",
]  # fmt: skip


def group_stability(
    groups: pd.DataFrame, tests: pd.DataFrame | None = None, rule: EdgeRule = DEFAULT, max_q: float = 0.05
) -> Result:
    """Agreement of the effects measured in different groups of cells.

    Parameters
    ----------
    groups : DataFrame
        `trace/groups.parquet`: the moments of `trace/effects.parquet` per group of cells, with
        `group_name` (the obs column) and `group` (its value). A test missing in a group counts as no
        response there.
    tests : DataFrame, optional
        `trace/tests.parquet`, which counts the tests that the trace made and did not keep.
    rule : EdgeRule
        What counts as an edge within a group.
    max_q : float
        Level of the heterogeneity test.

    Returns
    -------
    Result
        Per group_name: `<name>_jaccard`, `<name>_r`, `<name>_sign` (means over pairs of groups; nulls: random
        sets of the same sizes, 0, 0.5) and `<name>_heterogeneous_share`: edges of any group whose mean
        response differs between groups (Cochran's Q on the group means, BH; null `max_q`). Table: one
        row per pair of groups.

    Raises
    ------
    ScircuitError
        On missing columns, or no group_name with two groups.
    """
    missing = [column for column in COLUMNS if column not in groups]
    if missing:
        raise ScircuitError(f"the table groups lacks {', '.join(missing)}; it needs {', '.join(COLUMNS)}.")
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
        measures.append(_heterogeneity(str(name), list(aligned.values()), max_q))
    if not measures:
        raise ScircuitError("no group_name has two groups; trace with an obs column of at least two values.")
    return Result.of(
        "group_stability",
        "stability-groups/2",
        measures,
        pd.concat(tables, ignore_index=True),
        "edge sets of the same sizes drawn at random from the tests",
        ["jaccard", "d"],
    )


class _Group(NamedTuple):
    """What one group of cells says of every test of any group, `[test]`: whether an edge, d, mean, its variance."""

    edge: np.ndarray
    d: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def _aligned(rows: pd.DataFrame, rule: EdgeRule, n_tests: int | None) -> dict[Any, _Group]:
    """Each group over the union of tests, in one order; a test that a group lacks has no response there."""
    key = np.zeros(len(rows), dtype=np.int64)
    for column in ENDS:
        values = rows[column].to_numpy(np.int64)
        key = key * (int(values.max(initial=0)) + 1) + values
    tests, test = np.unique(key, return_inverse=True)
    group = rows["group"]
    aligned = {}
    for name in sorted(group.dropna().unique()):
        mine = (group == name).to_numpy()
        own, place = rows.loc[mine, COLUMNS[6:]], test[mine]
        edge = np.zeros(len(tests), dtype=bool)
        edge[place] = rule.passes(own, n_tests)
        d, mean, variance = (np.zeros(len(tests), dtype=np.float32) for _ in range(3))
        d[place], mean[place] = own["cohens_d"], own["mean_delta"]
        variance[place] = own["sd_delta"] ** 2 / own["n_cells"].clip(lower=1)
        aligned[name] = _Group(edge, d, mean, variance)
    return aligned


def _heterogeneity(name: str, groups: list[_Group], max_q: float) -> Measure:
    edges = np.any([group.edge for group in groups], axis=0)
    mean, variance = (
        np.array([values[edges] for values in side], dtype=np.float64)
        for side in ([group.mean for group in groups], [group.variance for group in groups])
    )
    usable = variance > 0
    weight = np.where(usable, 1 / np.where(usable, variance, 1.0), 0.0)
    pooled = (weight * mean).sum(axis=0) / np.where(weight.sum(axis=0) > 0, weight.sum(axis=0), 1.0)
    q_stat, df = (weight * (mean - pooled) ** 2).sum(axis=0), usable.sum(axis=0) - 1
    tested = df > 0
    if not tested.any():
        return Measure(f"{name}_heterogeneous_share", np.nan, null=max_q)
    q = benjamini_hochberg(chdtrc(df[tested], q_stat[tested]))
    return Measure(f"{name}_heterogeneous_share", float((q < max_q).mean()), null=max_q, n=int(tested.sum()))


QUESTION = Question(
    name="group_stability",
    asks="Do cell types or donors give the same edges?",
    title="Stability over groups of cells",
    function=group_stability,
    needs=("groups", "tests"),
    figure="group_stability",
    marks="Every mark is a pair of groups.",
    table_columns={"groups": COLUMNS},
    redraws=True,
)
