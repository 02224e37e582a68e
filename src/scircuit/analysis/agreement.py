"""How far two measurements of the same tests agree: on the edges, the sizes and the signs."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import need_columns
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.schema import ENDS, SOURCE
from scircuit.errors import ScircuitError
from scircuit.stats.signflip import screen_p


class Agreement(NamedTuple):
    """Two measurements of one family of tests.

    `jaccard` of the edge sets and `expected_jaccard` of sets of those sizes drawn at random from the tests;
    `r` of d and `sign` agreement over the edges of either; `n_first`, `n_second`, `n_both` edges.
    """

    jaccard: float
    expected_jaccard: float
    r: float
    sign: float
    n_first: int
    n_second: int
    n_both: int


class CellEffects:
    """Per-cell responses of some sources, from which any subset of cells can be tested again; 0 may be left out."""

    def __init__(self, effects: pd.DataFrame, source_cells: pd.DataFrame) -> None:
        need_columns("table cell_effects", effects, [*ENDS, "cell", "delta"])
        need_columns("table source_cells", source_cells, [*SOURCE, "cell"])
        self.cells = np.unique(source_cells["cell"].to_numpy())
        sources = source_cells[SOURCE].drop_duplicates().sort_values(SOURCE, ignore_index=True)
        self.tests = effects[ENDS].drop_duplicates().sort_values(ENDS, ignore_index=True)
        self._test = effects.groupby(ENDS).ngroup().to_numpy()
        self._delta = effects["delta"].to_numpy(np.float64)
        source = source_cells.groupby(SOURCE).ngroup().to_numpy()
        self._source, self._source_cell = source, np.searchsorted(self.cells, source_cells["cell"].to_numpy())
        number = self.tests[SOURCE].merge(sources.assign(number=sources.index), on=SOURCE, how="left")
        self._source_of_test = number["number"].fillna(-1).to_numpy(np.int64)
        cell = np.minimum(np.searchsorted(self.cells, effects["cell"].to_numpy()), max(len(self.cells) - 1, 0))
        self._cell = cell
        n = len(self.cells)
        fired = np.unique(source.astype(np.int64) * n + self._source_cell)
        seen = self._source_of_test[self._test] * n + cell
        if (self.cells[cell] != effects["cell"].to_numpy()).any() or not np.isin(seen, fired).all():
            raise ScircuitError(
                "cell_effects holds responses in cells where the source does not fire according to source_cells; "
                "both tables must come from one trace."
            )

    def moments(self, weight: np.ndarray) -> pd.DataFrame:
        """What a trace of some cells would have found, one row per test.

        `weight` `[cell]`: how often each of `self.cells` counts (0 leaves it out).
        """
        n_tests = len(self.tests)
        w = weight[self._cell]
        delta = self._delta

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(self._test, w * values, minlength=n_tests)

        per_source = np.bincount(self._source, weight[self._source_cell])
        n = per_source[self._source_of_test]
        positive, negative = total(delta > 0), total(delta < 0)
        sums, squares = total(delta), total(delta**2)
        mean = sums / np.maximum(n, 1)
        variance = np.maximum(squares - n * mean**2, 0) / np.maximum(n - 1, 1)
        nonzero = positive + negative
        return pd.DataFrame(
            {
                "n_cells": n,
                "n_nonzero": nonzero,
                "n_pos": positive,
                "n_neg": negative,
                "mean_delta": mean,
                "cohens_d": mean / np.where(variance > 0, np.sqrt(variance), np.inf),
                "p_value": screen_p(nonzero, sums, squares),
            }
        )


def chance_of_sign(d_a: pd.Series, d_b: pd.Series) -> float:
    """How often two effects, drawn from either side independently, have one sign."""
    a, b = (d_a < 0).mean(), (d_b < 0).mean()
    return float(a * b + (1 - a) * (1 - b))


def family_size(tests: pd.DataFrame | None, sources: pd.DataFrame) -> int | None:
    """Tests that were made of these sources' own ablations, kept or not; None without `trace/tests.parquet`.

    A trace keeps the tests with a small p only. Corrected among themselves alone they would all look significant.
    """
    if tests is None:
        return None
    own = tests.loc[tests["kind"] == "latent"]
    return int(own.merge(sources[SOURCE].drop_duplicates(), on=SOURCE)["n_tests"].sum())


def agree(first: pd.DataFrame, second: pd.DataFrame, rule: EdgeRule, n_tests: int | None = None) -> Agreement:
    """Agreement of two tables of moments over the same tests, row by row.

    `n_tests` is the size of the family for Benjamini-Hochberg; None takes those of the table that responded.
    """
    a, b = rule.passes(first, n_tests), rule.passes(second, n_tests)
    d_a, d_b = (table["cohens_d"].to_numpy(np.float64) for table in (first, second))
    return agreement(a, b, d_a, d_b, n_tests)


def agreement(a: np.ndarray, b: np.ndarray, d_a: np.ndarray, d_b: np.ndarray, n_tests: int | None = None) -> Agreement:
    """Agreement of two edge sets (bool `[test]`) and their d `[test]`; NaN where there are no edges.

    Sets drawn at random are drawn from `n_tests` tests, by default those of the arrays.
    """
    either = a | b
    both, n_a, n_b = int((a & b).sum()), int(a.sum()), int(b.sum())
    chance = n_a * n_b / (n_tests or len(a)) if len(a) else 0.0
    union = n_a + n_b - both
    known = either & np.isfinite(d_a) & np.isfinite(d_b)
    varies = known.sum() > 2 and d_a[known].std() > 0 and d_b[known].std() > 0
    return Agreement(
        jaccard=both / union if union else np.nan,
        expected_jaccard=chance / (n_a + n_b - chance) if union else np.nan,
        r=float(np.corrcoef(d_a[known], d_b[known])[0, 1]) if varies else np.nan,
        sign=float((np.sign(d_a[either]) == np.sign(d_b[either])).mean()) if union else np.nan,
        n_first=n_a,
        n_second=n_b,
        n_both=both,
    )
