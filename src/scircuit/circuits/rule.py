"""`EdgeRule`: the one place that says which tests are edges, and which claims each edge makes.

A claim is measured or it is not made: a table without intervals has no sizeable edge, one without decoys no specific.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scircuit._settings import check_ranges, ranged
from scircuit.circuits.schema import P_UNSKEWED
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.skew import unskewed_p

Tests = Mapping[str, Any] | pd.DataFrame
"""Columns of tests by name, as a table or as arrays of one shape."""

Votes = tuple[np.ndarray, np.ndarray]


def _abstaining(tests: Tests) -> Votes:
    return np.maximum(_column(tests, "n_pos"), _column(tests, "n_neg")), _column(tests, "n_nonzero")


def _zero_as_negative(tests: Tests) -> Votes:
    positive, cells = _column(tests, "n_pos"), _column(tests, "n_cells")
    return np.maximum(positive, cells - positive), cells


VOTES: Mapping[str, Callable[[Tests], Votes]] = {"nonzero": _abstaining, "zero_as_negative": _zero_as_negative}
"""Per word for consistency: the cells that agree in sign and the cells that have a vote, float64 `[test]` each."""


@dataclass(frozen=True)
class EdgeRule:
    """Which tests are edges, and of which grade.

    An edge is *reproducible*: |d| > min_abs_d, consistency > min_consistency, q < max_q, all strict. It is *sizeable*
    where the near end of the 95 % interval of its mean response exceeds `min_effect_sd` clean SD of the target (over
    the cells and positions where the source fires), and *specific* where it also beats the decoys
    (`circuits.specificity`). A file writes None as null.
    """

    min_abs_d: float = ranged(0.5, 0)
    """|Cohen's d| must exceed this (mean / SD of the response over the cells in which the source fires)."""
    min_consistency: float = ranged(0.7, 0, 1)
    """Share of responding cells that agree in sign must exceed this."""
    max_q: float | None = 0.05
    """Benjamini-Hochberg q over all tests must be below this; null for no test."""
    min_nonzero: int = ranged(10, 0)
    """Fewest cells that respond."""
    consistency: str = "nonzero"
    """nonzero (cells without response abstain) or zero_as_negative (the published rule)."""
    allow_for_skew: bool = False
    """Take the larger of p and that of a t from which the skewness of the responses is removed, over cells or over
    `trace.units`; over cells it needs their responses, which the exact engine keeps."""
    top_k: int | None = None
    """Keep the k strongest per source and layer; null keeps all."""
    min_effect_sd: float | None = ranged(0.1, 0)
    """Sizeable: the near end of the interval of the mean response, in clean SD of the target; null asks no size."""
    max_q_specific: float | None = 0.05
    """Specific: target-decoy q must be below this; null asks no specificity."""

    def __post_init__(self) -> None:
        if self.consistency not in VOTES:
            raise ScircuitError(f"consistency is {self.consistency!r}; choose one of {', '.join(VOTES)}.")
        if self.max_q is not None and not 0 < self.max_q <= 1:
            raise ScircuitError(f"max_q is {self.max_q}; give a rate in (0, 1], or None for no test.")
        if self.max_q_specific is not None and not 0 < self.max_q_specific <= 1:
            raise ScircuitError(f"max_q_specific is {self.max_q_specific}; give a rate in (0, 1], or None to ask none.")
        if self.max_q_specific is not None and self.min_effect_sd is None:
            raise ScircuitError("max_q_specific needs a floor of size; give min_effect_sd (0 if any size will do).")
        check_ranges(self)
        if self.top_k is not None and self.top_k < 1:
            raise ScircuitError(f"top_k is {self.top_k}; give at least 1, or None to keep every edge.")

    @classmethod
    def recorded(cls, thresholds: Mapping[str, Any]) -> "EdgeRule":
        """The rule that `run.json` tells; what was built before edges had grades made no further claims."""
        return cls(**{"min_effect_sd": None, "max_q_specific": None, **thresholds})

    def votes(self, tests: Tests) -> Votes:
        """Cells that agree in sign, and cells that have a vote; float64 `[test]` each."""
        return VOTES[self.consistency](tests)

    def agreement(self, tests: Tests) -> np.ndarray:
        """Consistency under this rule, float64 `[test]`; 0 where no cell has a vote."""
        agree, of = self.votes(tests)
        return np.divide(agree, of, out=np.zeros_like(of), where=of > 0)

    def q_values(self, tests: Tests, n_tests: int | None = None) -> np.ndarray:
        """Benjamini-Hochberg q over the tests that responded, float64 `[test]`; 1 where none did.

        `n_tests` is the size of the family where the table holds only a part of it (those with a small p).
        """
        responded = _column(tests, "n_nonzero") > 0
        q = np.ones(responded.shape)
        q[responded] = benjamini_hochberg(self.p_values(tests)[responded], n_tests)
        return q

    def p_values(self, tests: Tests) -> np.ndarray:
        """The p by which tests are judged, float64 `[test]`: `p_value`, or the larger one of `allow_for_skew`.

        Where the long tail of the responses points away from their mean, p is too small and the second is larger;
        elsewhere the first is. So the rule can only lose edges by it.

        Raises
        ------
        ScircuitError
            Where skewness is asked for and was not measured.
        """
        p = _column(tests, "p_value")
        if not self.allow_for_skew:
            return p
        without_skew = unskewed(tests)
        if np.isnan(without_skew).any():
            raise ScircuitError(
                "allow_for_skew needs the responses cell by cell, and this trace did not keep them; trace fewer "
                'sources, or with trace.engine = "exact".'
            )
        return np.maximum(p, without_skew)

    def sizeable(self, tests: Tests) -> np.ndarray:
        """Whether the near end of the interval exceeds the floor, bool `[test]`, of any test, reproducible or not.

        `tests` gives `effect_sd_near` (see `circuits.size`). False where the target's clean activation does not vary,
        for then nothing says what is much.
        """
        near = _column(tests, "effect_sd_near")
        return np.where(np.isfinite(near), near, -np.inf) > (self.min_effect_sd or 0.0)

    def passes(self, tests: Tests, n_tests: int | None = None, q: np.ndarray | None = None) -> np.ndarray:
        """Which tests are reproducible, bool `[test]`; `top_k` is left to who has the whole table.

        `tests` gives `cohens_d` (which counts as `stored_size`), `n_cells, n_nonzero, n_pos, n_neg`, and for `max_q`
        also `p_value`, unless their `q` is known already; `n_tests` as in `q_values`.
        """
        d = stored_size(tests["cohens_d"])
        n_nonzero = _column(tests, "n_nonzero")
        passes = (d > self.min_abs_d) & (self.agreement(tests) > self.min_consistency)
        passes &= (n_nonzero > 0) & (n_nonzero >= self.min_nonzero)
        if self.max_q is not None:
            passes &= (self.q_values(tests, n_tests) if q is None else q) < self.max_q
        return passes


def stored_size(d: Any) -> np.ndarray:
    """|d|, float64, in the precision in which tables store d (float32), whatever it was computed in.

    A test at a threshold is so judged alike before and after it was written.
    """
    return np.abs(np.asarray(d, dtype=np.float32)).astype(np.float64)


def unskewed(tests: Tests) -> np.ndarray:
    """`stats.skew.unskewed_p` over what `p_value` is over, float64 `[test]`; NaN where skewness is not known.

    Over the cells that respond, or as the trace took it over its units; 1 where nothing responds.
    """
    if P_UNSKEWED in tests:
        return np.where(_column(tests, "n_nonzero") > 0, _column(tests, P_UNSKEWED), 1.0)
    if "skewness" not in tests:
        return np.full_like(_column(tests, "p_value"), np.nan)
    n, m, mean, sd = (_column(tests, name) for name in ("n_cells", "n_nonzero", "mean_delta", "sd_delta"))
    some = np.maximum(m, 1)
    square = (n - 1) * sd**2 + n * mean**2 - (n * mean) ** 2 / some
    square = np.where(square > 1e-6 * n * mean**2, square, 0.0)
    skewness = _column(tests, "skewness")
    p = unskewed_p(m, n * mean / some, np.sqrt(square / np.maximum(m - 1, 1)), skewness)
    return np.where(np.isnan(skewness) & (m > 0), np.nan, p)


DEFAULT = EdgeRule()


def _column(tests: Tests, name: str) -> np.ndarray:
    return np.asarray(tests[name], dtype=np.float64)
