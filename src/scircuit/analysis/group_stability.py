"""Stability over groups of cells: whether cell types, donors or batches show the same edges."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from scircuit.analysis.agreement import agree, called, family_size
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.build import DEFAULT, EdgeRule
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
    for name, rows in groups.groupby("group_name", observed=True):
        if rows["group"].nunique() < 2:
            continue
        aligned = _aligned(rows)
        pairs = [
            {"group_name": name, "first": a, "second": b} | agree(aligned[a], aligned[b], rule, n_tests)._asdict()
            for a, b in combinations(aligned, 2)
        ]
        table = pd.DataFrame(pairs)
        tables.append(table)
        n = int((table["n_first"] + table["n_second"] - table["n_both"]).sum())
        means = table[["jaccard", "r", "sign", "expected_jaccard"]].mean()
        nulls = {"jaccard": means["expected_jaccard"], "r": 0.0, "sign": 0.5}
        measures += [Measure(f"{name}_{f}", float(means[f]), null=null, n=n) for f, null in nulls.items()]
        measures.append(_heterogeneity(str(name), aligned, rule, max_q, n_tests))
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


def _aligned(rows: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    """The moments of each group over the union of tests, in one order."""
    tests = rows[ENDS].drop_duplicates().sort_values(ENDS)
    n_cells = rows.groupby(["group", *ENDS[:2]], observed=True)["n_cells"].max()
    aligned = {}
    for group, own in rows.groupby("group", observed=True):
        table = tests.merge(own.drop(columns=["group_name", "group"]), on=ENDS, how="left")
        silent = table["n_cells"].isna()
        cells = n_cells.loc[group].reindex(pd.MultiIndex.from_frame(table[ENDS[:2]])).to_numpy()
        table["n_cells"] = np.where(silent, np.nan_to_num(cells), table["n_cells"])
        aligned[group] = table.fillna({"p_value": 1.0}).fillna(0.0)
    return aligned


def _heterogeneity(
    name: str, aligned: dict[Any, pd.DataFrame], rule: EdgeRule, max_q: float, n_tests: int | None
) -> Measure:
    tables = list(aligned.values())
    edges = np.any([called(table, rule, n_tests) for table in tables], axis=0)
    mean = np.array([table["mean_delta"] for table in tables])[:, edges]
    variance = np.array([table["sd_delta"] ** 2 / table["n_cells"].clip(lower=1) for table in tables])[:, edges]
    usable = variance > 0
    weight = np.where(usable, 1 / np.where(usable, variance, 1.0), 0.0)
    pooled = (weight * mean).sum(axis=0) / np.where(weight.sum(axis=0) > 0, weight.sum(axis=0), 1.0)
    q_stat, df = (weight * (mean - pooled) ** 2).sum(axis=0), usable.sum(axis=0) - 1
    tested = df > 0
    if not tested.any():
        return Measure(f"{name}_heterogeneous_share", np.nan, null=max_q)
    q = benjamini_hochberg(chdtrc(df[tested], q_stat[tested]))
    return Measure(f"{name}_heterogeneous_share", float((q < max_q).mean()), null=max_q, n=int(tested.sum()))
