"""Circuits of tissues and cell types: edges whose effect differs inside a group of cells from the rest."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student

from scircuit.analysis.cell_ontology import CellOntology
from scircuit.analysis.nodes import need_columns
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.schema import ENDS, SOURCE
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg

_COLUMNS = ["group_name", "group", *ENDS, "n_cells", "mean_delta", "sd_delta"]


def tissue(
    groups: pd.DataFrame,
    tests: pd.DataFrame,
    group_name: str,
    ontology: CellOntology | None = None,
    terms: Sequence[str] | None = None,
    min_cells: int = 10,
    max_q: float = 0.05,
) -> Result:
    """Edges specific to a cell type, a tissue, or a branch of the Cell Ontology.

    Moments of groups add up to moments of terms (n, sum, sum of squares), so any union of groups is compared with its
    complement without another trace; a test that is missing in a group counts as no response in its cells. Groups
    belong to a term through the ontology, by identifier or exact name, never through a part of their name; without
    `terms` every group stands by itself. Tests that the trace did not keep are part of the family, with p = 1.

    Measures per term: `<term>_specific_share`, n the number of tests made with `min_cells` on either side (null 0).
    Table: one row per (term, test) with q < `max_q`: `term`, the ends, `n_inside, n_outside, mean_inside, mean_outside,
    difference, low, high` (95 %), `t, p_value, q_value`.
    """
    need_columns("table groups", groups, _COLUMNS)
    rows = groups[groups["group_name"] == group_name]
    if rows.empty:
        known = ", ".join(sorted(groups["group_name"].astype(str).unique()))
        raise ScircuitError(f"the trace was not grouped by {group_name!r}; it has {known}: trace with that obs column.")
    names = sorted(rows["group"].astype(str).unique())
    members = _members(names, ontology, terms)
    n, total, square, ends = _sums(rows, names)
    parts, family = [], {}
    for term, members_of_term in members.items():
        inside = np.isin(names, members_of_term)
        table = _contrast(n, total, square, inside, min_cells)
        parts.append(pd.concat([ends, table], axis=1).assign(term=term).loc[table["p_value"].notna()])
        family[term] = max(_tests_made(tests, ends, n, inside, min_cells), len(parts[-1]))
    every = pd.concat(parts, ignore_index=True)
    if every.empty:
        raise ScircuitError(
            f"no test has {min_cells} cells inside and outside of any term; lower min_cells or trace more cells."
        )
    every["q_value"] = benjamini_hochberg(every["p_value"].to_numpy(), sum(family.values()))
    measures = []
    for term in members:
        specific = int(((every["term"] == term) & (every["q_value"] < max_q)).sum())
        share = specific / family[term] if family[term] else np.nan
        measures.append(Measure(f"{term}_specific_share", share, null=0.0, n=family[term], unit_of_n="tests"))
    table = every[every["q_value"] < max_q].sort_values(["term", "q_value"]).reset_index(drop=True)
    table = table[["term", *table.columns.drop("term")]]
    return QUESTION.answer(measures, table)


def _members(names: list[str], ontology: CellOntology | None, terms: Sequence[str] | None) -> dict[str, list[str]]:
    """Groups of each term."""
    if terms is not None and ontology is None:
        raise ScircuitError("terms need an ontology that says which groups they cover; read one with read_obo.")
    members = {}
    for term in names if terms is None else terms:
        own = [term] if ontology is None or terms is None else ontology.members(term, names)
        if not own or len(own) == len(names):
            amount = "none" if not own else "all"
            raise ScircuitError(
                f"the term {term!r} covers {amount} of the groups ({', '.join(names[:6])}); choose terms that divide "
                "them."
            )
        members[term] = own
    return members


def _sums(rows: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.DataFrame]:
    """`n`, sum and sum of squares `[group, test]` of the responses, and the ends of the tests."""
    tests = rows[ENDS].drop_duplicates().sort_values(ENDS, ignore_index=True)
    test = pd.MultiIndex.from_frame(tests).get_indexer(pd.MultiIndex.from_frame(rows[ENDS]))
    group = pd.Index(names).get_indexer(pd.Index(rows["group"].astype(str)))
    cells, mean, sd = (rows[name].to_numpy(np.float64) for name in ("n_cells", "mean_delta", "sd_delta"))
    shape = (len(names), len(tests))
    total, square = np.zeros(shape), np.zeros(shape)
    total[group, test] = cells * mean
    square[group, test] = np.maximum(cells - 1, 0) * np.nan_to_num(sd) ** 2 + cells * mean**2
    source = pd.factorize(pd.MultiIndex.from_frame(tests[SOURCE]))[0]
    per_source = np.zeros((len(names), source.max() + 1))
    np.maximum.at(per_source, (group, source[test]), cells)
    return per_source[:, source], total, square, tests


def _tests_made(tests: pd.DataFrame, ends: pd.DataFrame, n: np.ndarray, inside: np.ndarray, min_cells: int) -> int:
    """Tests whose source fires in enough cells on both sides, kept or not.

    Where no test of a source was kept, nothing says how its cells divide: it counts unless they are too few for both.
    """
    made = tests.loc[tests["kind"] == "latent"].groupby(SOURCE).agg({"n_tests": "sum", "n_cells": "max"})
    enough = (n[inside].sum(axis=0) >= min_cells) & (n[~inside].sum(axis=0) >= min_cells)
    known = pd.Series(enough, pd.MultiIndex.from_frame(ends[SOURCE])).groupby(level=[0, 1]).first()
    counts = known.reindex(made.index, fill_value=True).to_numpy(bool) & (made["n_cells"] >= 2 * min_cells).to_numpy()
    return int(made["n_tests"].to_numpy()[counts].sum())


def _contrast(n: np.ndarray, total: np.ndarray, square: np.ndarray, inside: np.ndarray, min_cells: int) -> pd.DataFrame:
    """Welch's t between the pooled cells of `inside` groups and the others, one row per test.

    On the degrees of freedom of the smaller side, by which p is never too small (Mickey & Brown 1966, Ann Math Stat
    37:639). Those of Satterthwaite hold at .05 but not far out, where corrected tests live: of 10 cells against 90,
    five times too many have p < 2e-5.
    """
    size, mean, error = [], [], []
    for side in (inside, ~inside):
        count = n[side].sum(axis=0)
        centre = total[side].sum(axis=0) / np.maximum(count, 1)
        spread = np.maximum(square[side].sum(axis=0) - count * centre**2, 0.0) / np.maximum(count - 1, 1)
        size.append(count)
        mean.append(centre)
        error.append(spread / np.maximum(count, 1))
    variance = error[0] + error[1]
    usable = (size[0] >= min_cells) & (size[1] >= min_cells) & (variance > 0)
    safe = np.where(usable, variance, 1.0)
    freedom = np.where(usable, np.minimum(*size) - 1, 1.0)
    difference = mean[0] - mean[1]
    statistic = difference / np.sqrt(safe)
    reach = student.ppf(0.975, freedom) * np.sqrt(safe)
    return pd.DataFrame(
        {
            "n_inside": size[0].astype(int),
            "n_outside": size[1].astype(int),
            "mean_inside": mean[0],
            "mean_outside": mean[1],
            "difference": difference,
            "low": difference - reach,
            "high": difference + reach,
            "t": statistic,
            "p_value": np.where(usable, 2 * student.sf(np.abs(statistic), freedom), np.nan),
        }
    )


QUESTION = Question(
    asks="Which edges differ between cell types or tissues?",
    title="Cell types and tissues",
    function=tissue,
    definition="tissue/3",
    null_model="no difference between the cells of the term and the rest",
    glossary="specific edge: its mean response in the cells of the term differs from that in all other cells (Welch's "
    "t on stored moments, degrees of freedom of the smaller side, BH over all tests and terms); the same model, SAE "
    "and source throughout, only the cells differ.",
    needs=("groups", "tests", "group", "ontology", "ontology_terms"),
    figure="shares",
    marks="Share of tests that differ, per term.",
    by_itself=False,
)
