"""Replication: whether edges are there again in other cells, and how much too large they were found."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import need_columns
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.confirmation import ALPHA
from scircuit.circuits.schema import ENDS, LAYER_PAIR, SOURCE
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import bootstrap_draws, percentile_interval, permutation_p

MIN_NONZERO = 6
"""Responding cells below which no sign-flip p is under 0.05 (2**-5 = 0.03)."""
_COLUMNS = [*ENDS, "n_cells", "n_nonzero", "cohens_d", "p_value", "discovery_d"]
_LEAST = 5


def replication(
    confirmed: pd.DataFrame, alpha: float = ALPHA, draws: int = 2000, null_draws: int = 1000, seed: int = 0
) -> Result:
    """Share of the edges found again, and the winner's-curse slope.

    An edge is replicated when its effect in the confirmation cells has the sign of discovery and q < `alpha`,
    Benjamini-Hochberg over the edges measured again; an edge whose source is silent there is not. The slope is that of
    confirmation d on discovery d through the origin, sum(x y) / sum(x^2): 1 when edges were found as large as they are,
    below 1 by as much as choosing large d made them look larger (Ioannidis 2008).

    Null of the two shares: what edges without any effect would reach, half of the largest p that counted as significant
    (the sign of such an edge is right in half of the cases). Null of the others, in `null_draws`: every edge is given
    the confirmation of another one of the same layer pair at random, so that what edges of a depth have in common
    remains. Table: the input with `q_value, testable, replicated`.
    """
    need_columns("confirmation table", confirmed, _COLUMNS, "run `scircuit trace` to make it")
    if len(confirmed) < _LEAST:
        raise ScircuitError(f"{len(confirmed)} edges were measured again; at least {_LEAST} are needed.")
    if not 0 < alpha < 1:
        raise ScircuitError(f"alpha is {alpha}; give a level between 0 and 1, for example 0.05.")
    rng = np.random.default_rng(seed)
    x, y = (confirmed[c].to_numpy(np.float64) for c in ("discovery_d", "cohens_d"))
    q = benjamini_hochberg(confirmed["p_value"].to_numpy(np.float64))
    testable = (confirmed["n_nonzero"] >= MIN_NONZERO).to_numpy()
    significant = q < alpha
    code = pd.factorize(pd.MultiIndex.from_frame(confirmed[SOURCE]))[0]
    rows = _components(x, y, significant, testable)
    sums = np.column_stack([np.bincount(code, column) for column in rows.T])
    observed = sums.sum(axis=0)
    pair = pd.factorize(pd.MultiIndex.from_frame(confirmed[LAYER_PAIR]))[0]
    nulls = np.array(
        [_components(x, *_exchanged(pair, rng, y, significant, testable)).sum(axis=0) for _ in range(null_draws)]
    )
    reached = float(confirmed.loc[significant, "p_value"].max()) if significant.any() else 0.0
    measures = []
    for name, statistic, n_at in _STATISTICS:
        value = float(statistic(observed))
        interval = percentile_interval(value, bootstrap_draws(sums, statistic, rng, draws), 0.95, len(sums))
        null = statistic(nulls)
        null = null[np.isfinite(null)]
        told = name not in _OF_NO_EFFECT and null.size and np.isfinite(value)
        p = permutation_p(value, null) if told else np.nan
        expected = float(null.mean()) if told else _OF_NO_EFFECT.get(name, np.nan) * reached
        measures.append(Measure.of(name, interval, int(observed[n_at]), expected, p))
    table = confirmed.assign(q_value=q, testable=testable, replicated=rows[:, 1] > 0)
    return QUESTION.answer(measures, table)


_ALL, _REPLICATED, _TESTABLE, _REPLICATED_TESTABLE, _RESPONDING, _SAME_SIGN, _N, _X, _Y, _XX, _YY, _XY, _ALONG = range(
    13
)


def _components(x: np.ndarray, y: np.ndarray, significant: np.ndarray, testable: np.ndarray) -> np.ndarray:
    """What each edge adds to the totals from which every measure follows, float64 `[edge, 13]`."""
    same = np.sign(x) == np.sign(y)
    replicated = same & significant
    finite = np.isfinite(x) & np.isfinite(y) & testable
    a, b = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
    columns = [
        np.ones(len(x)), replicated, testable, replicated & testable, y != 0, same & (y != 0), finite, a, b, a * a,
        b * b, a * b, np.sign(a) * b,
    ]  # fmt: skip
    return np.column_stack(columns).astype(np.float64)


def _exchanged(
    pair: np.ndarray, rng: np.random.Generator, *values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values with rows exchanged at random within each layer pair."""
    shuffled = np.lexsort((rng.random(len(pair)), pair))
    order = np.empty(len(pair), dtype=np.int64)
    order[np.argsort(pair, kind="stable")] = shuffled
    y, significant, testable = (v[order] for v in values)
    return y, significant, testable


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=np.asarray(bottom) > 1e-12)


def _spread(t: np.ndarray, square: int, first: int) -> np.ndarray:
    return np.maximum(t[..., square] - _ratio(t[..., first] ** 2, t[..., _N]), 0.0)


def _together(t: np.ndarray) -> np.ndarray:
    return t[..., _XY] - _ratio(t[..., _X] * t[..., _Y], t[..., _N])


def _share(top: int, bottom: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: _ratio(t[..., top], t[..., bottom])


_STATISTICS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray], int], ...] = (
    ("confirmed_share", _share(_REPLICATED, _ALL), _ALL),
    ("confirmed_share_testable", _share(_REPLICATED_TESTABLE, _TESTABLE), _TESTABLE),
    ("sign_agreement", _share(_SAME_SIGN, _RESPONDING), _RESPONDING),
    ("r", lambda t: _ratio(_together(t), np.sqrt(_spread(t, _XX, _X) * _spread(t, _YY, _Y))), _N),
    ("slope", _share(_XY, _XX), _N),
    ("slope_affine", lambda t: _ratio(_together(t), _spread(t, _XX, _X)), _N),
    ("testable_share", _share(_TESTABLE, _ALL), _ALL),
    ("mean_d", _share(_ALONG, _N), _N),
)
_OF_NO_EFFECT = {"confirmed_share": 0.5, "confirmed_share_testable": 0.5, "testable_share": np.nan}
"""Measures that exchanged confirmations tell nothing of, and their null in units of the largest significant p."""


QUESTION = Question(
    asks="Are the edges there again in other cells?",
    title="Replication in other cells",
    function=replication,
    definition="replication/2",
    null_model="shares: edges without an effect; signs and sizes: edges given each other's confirmation within a "
    "layer pair",
    terms=("confirmation", "d", "supporting"),
    needs=("confirmation",),
    marks="Every mark is an edge; at most 3,000 are drawn. Dashed: as large as it was found. Solid: the slope. "
    "The frame holds every d of discovery.",
    words={
        "confirmed_share": "edges found again",
        "confirmed_share_testable": "edges found again, of those with at least 6 responding cells",
        "sign_agreement": "edges of the same sign in the other cells",
        "r": "correlation of d in both",
        "slope": "winner's-curse slope: d in the other cells over d as found",
        "slope_affine": "the same with an intercept",
        "testable_share": "edges with at least 6 responding cells",
        "mean_d": "mean d in the other cells, in the direction found",
    },
)
