"""Sign-flip tests of a mean: under the null, each unit's value could as well have had the other sign.

The p-value is the share of the 2**m sign patterns whose |sum| reaches the observed one, m being the number of
non-zero values (flipping a zero changes nothing). It needs symmetry about zero and exchangeable units, no
normality. Four roads to it: the t form from moments alone (`screen_p`), exact counting (`exact_p`),
Monte-Carlo (`sampled_p`) and the saddlepoint tail (`saddlepoint_p`); `signflip_p` takes the best one for
each test.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtr

from scircuit.errors import ScircuitError

MAX_EXACT = 24
"""Non-zero values up to which every sign pattern is counted (2**12 half sums per side)."""

_TIE = 1e-10
_CHUNK = 1 << 21


def screen_p(n_nonzero: ArrayLike, total: ArrayLike, total_sq: ArrayLike) -> np.ndarray:
    """Two-sided p from moments: the t form of the sign-flip test, floored at the smallest p attainable.

    With z = total / sqrt(total_sq), the sign-flip z-score, t = z sqrt((m - 1) / (m - z^2)) on m - 1
    degrees of freedom is the one-sample t of the non-zero values; the floor 2**(1 - m) is what all-equal
    signs can give. Good for screening; where few large values dominate, it can be a few times too small,
    so decisions near a threshold belong to `signflip_p`.

    Parameters
    ----------
    n_nonzero, total, total_sq : arrays of one shape (broadcast)
        Number of non-zero values, their sum and their sum of squares.

    Returns
    -------
    float64, the broadcast shape; 1 where m < 2 or everything is zero.
    """
    m, total, square = np.broadcast_arrays(
        np.asarray(n_nonzero, dtype=np.float64),
        np.asarray(total, dtype=np.float64),
        np.asarray(total_sq, dtype=np.float64),
    )
    testable = (m >= 2) & (square > 0)
    m_safe = np.where(testable, m, 2.0)
    z_sq = np.minimum(total**2 / np.where(testable, square, 1.0), m_safe)
    with np.errstate(divide="ignore"):
        t = np.sqrt(z_sq * (m_safe - 1) / (m_safe - z_sq))
    p = np.maximum(2 * stdtr(m_safe - 1, -t), np.exp2(1 - m_safe))
    return np.where(testable, np.minimum(p, 1.0), 1.0)


def can_reach(level: float, n_nonzero: ArrayLike, total: ArrayLike, total_sq: ArrayLike) -> np.ndarray:
    """Whether the sign-flip p can be as small as `level`, from moments alone: False only where it cannot be.

    2**(1 - m) bounds p from below, and with z^2 = total^2 / total_sq < 1 so does (1 - z^2)^2 / 3: the Paley-Zygmund
    inequality for the square of the signed sum S, whose fourth moment is at most 3 E(S^2)^2 (Paley & Zygmund 1932,
    Proc Camb Phil Soc 28:266). No screen by a quantile of t or of the normal has that property: one large value
    beside ten small ones of its sign has z near 1 and p = 2**-10.

    Parameters
    ----------
    level : float
    n_nonzero, total, total_sq
        As for `screen_p`.

    Returns
    -------
    bool, the broadcast shape
    """
    m, total, square = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (n_nonzero, total, total_sq)))
    testable = (m >= 2) & (square > 0)
    z_sq = total**2 / np.where(testable, square, 1.0)
    near = np.square(np.maximum(1 - z_sq, 0.0)) / 3
    # Sums carry rounding; a bound that is missed by less than that counts as reached.
    return testable & (np.exp2(1 - m) <= level) & (near <= level * (1 + 1e-9))


def group_sums(values: ArrayLike, groups: ArrayLike) -> np.ndarray:
    """Sum of each test's values within donors or batches, float64 `[test, group]`.

    Flipping whole groups is the sign-flip test of these sums: use it when cells of one donor share their
    noise.
    """
    values = _checked(values)
    groups = np.asarray(groups)
    if groups.shape != (values.shape[1],):
        raise ScircuitError(f"groups has shape {groups.shape}; give one label for each of the {values.shape[1]} cells.")
    _, code = np.unique(groups, return_inverse=True)
    member = np.zeros((values.shape[1], code.max(initial=-1) + 1))
    member[np.arange(len(code)), code] = 1.0
    return values @ member


def exact_p(values: ArrayLike) -> np.ndarray:
    """Two-sided p by counting every sign pattern, meeting in the middle.

    Parameters
    ----------
    values : float `[test, cell]`
        Any number of cells, at most `MAX_EXACT` of them non-zero in each test.

    Returns
    -------
    float64 `[test]`
        Exact up to ties: sums within 1e-10 of the sum of |values| count as equal.

    Raises
    ------
    ScircuitError
        On NaN or infinite values, or more than `MAX_EXACT` non-zero values.
    """
    values = _checked(values)
    m = np.count_nonzero(values, axis=1)
    if m.max(initial=0) > MAX_EXACT:
        raise ScircuitError(
            f"exact_p was given {m.max()} non-zero values in one test; it counts at most {MAX_EXACT}, "
            "use signflip_p for more."
        )
    p = np.ones(len(values))
    for size in np.unique(m[m > 1]):
        rows = np.flatnonzero(m == size)
        step = max(1, _CHUNK >> ((size + 1) // 2))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            nonzero = values[block][values[block] != 0].reshape(-1, size)
            p[block] = _count_patterns(nonzero)
    return p


def _count_patterns(x: np.ndarray) -> np.ndarray:
    """Share of sign patterns with |sum| >= |observed|, `[test]`, from the sorted sums of both halves."""
    m = x.shape[1]
    threshold = np.abs(x.sum(axis=1)) - _TIE * np.abs(x).sum(axis=1)
    left = x[:, : m // 2] @ _patterns(m // 2)
    right = np.sort(x[:, m // 2 :] @ _patterns(m - m // 2), axis=1)
    reach = right.shape[1] - _search_rows(right, threshold[:, None] - left)
    # Patterns come in mirrored pairs, so both tails are twice the upper one unless they overlap.
    return np.where(threshold > 0, 2 * reach.sum(axis=1) / 2.0**m, 1.0)


def _patterns(m: int) -> np.ndarray:
    """All sign patterns of m values, float64 `[m, 2**m]`."""
    return 1.0 - 2.0 * ((np.arange(1 << m) >> np.arange(m)[:, None]) & 1)


def _search_rows(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Number of entries of each sorted row below each wanted value; rows are 2**k long."""
    size = rows.shape[1]
    position = np.zeros(wanted.shape, dtype=np.int64)
    step = size >> 1
    while step:
        below = np.take_along_axis(rows, position + (step - 1), axis=1) < wanted
        position += step * below
        step >>= 1
    return position + (np.take_along_axis(rows, position, axis=1) < wanted)


def sampled_p(values: ArrayLike, draws: int, rng: np.random.Generator, groups: ArrayLike | None = None) -> np.ndarray:
    """Two-sided Monte-Carlo p = (b + 1) / (draws + 1), all tests sharing the sign patterns.

    Parameters
    ----------
    values : float `[test, cell]`
    draws : int
        Random sign patterns; no p is smaller than 1 / (draws + 1).
    rng : numpy Generator
    groups : labels `[cell]`, optional
        Donors or batches that are flipped as one.

    Returns
    -------
    float64 `[test]`, valid at any number of draws (Phipson & Smyth 2010).
    """
    values = _checked(values) if groups is None else group_sums(values, groups)
    if draws < 1:
        raise ScircuitError(f"draws is {draws}; give at least 1, and 1,000 or more for a useful p.")
    threshold = np.abs(values.sum(axis=1)) - _TIE * np.abs(values).sum(axis=1)
    reached = np.zeros(len(values), dtype=np.int64)
    step = max(1, _CHUNK // max(len(values), values.shape[1], 1))
    for start in range(0, draws, step):
        n = min(step, draws - start)
        signs = 1.0 - 2.0 * rng.integers(0, 2, (values.shape[1], n))
        reached += (np.abs(values @ signs) >= threshold[:, None]).sum(axis=1)
    return (reached + 1) / (draws + 1)


def saddlepoint_p(values: ArrayLike) -> np.ndarray:
    """Two-sided p from the Lugannani-Rice saddlepoint tail: accurate far beyond what sampling reaches.

    K(t) = sum log cosh(t x_i) is the cumulant function of the signed sum; with K'(t) = |sum x|,
    w = sqrt(2 (t s - K)) and u = t sqrt(K''), the tail is 1 - Phi(w) + phi(w) (1/u - 1/w) (Lugannani &
    Rice 1980; for randomisation tests Robinson 1982). The result is kept between 2**(1 - m) and the
    Chernoff bound 2 exp(K - t s), which is rigorous and exact where all signs agree.

    Parameters
    ----------
    values : float `[test, cell]`

    Returns
    -------
    float64 `[test]`; 1 where fewer than two values are non-zero.
    """
    values = _checked(values)
    p = np.ones(len(values))
    step = max(1, _CHUNK // max(values.shape[1], 1))
    for start in range(0, len(values), step):
        p[start : start + step] = _saddlepoint(values[start : start + step])
    return p


def _saddlepoint(values: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.sum(values**2, axis=1, keepdims=True))
    x = np.abs(values) / np.where(scale > 0, scale, 1.0)
    m = np.count_nonzero(x, axis=1)
    s = np.abs(values.sum(axis=1)) / np.where(scale > 0, scale, 1.0)[:, 0]
    reachable = s < x.sum(axis=1) * (1 - 1e-12)
    t = _solve(x, np.where(reachable, s, 0.0))

    tx = t[:, None] * x
    exponent = t * s - (tx + np.log1p(np.exp(-2 * tx)) - np.log(2)).sum(axis=1)
    w = np.sqrt(2 * np.maximum(exponent, 0.0))
    u = t * np.sqrt((x**2 / np.cosh(np.minimum(tx, 350.0)) ** 2).sum(axis=1))
    far = (w > 1e-4) & (u > 0)
    correction = 1 / np.where(far, u, 1.0) - 1 / np.where(far, w, 1.0)
    tail = ndtr(-w) + np.where(far, np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi) * correction, 0.0)
    upper = np.minimum(2 * np.exp(-exponent), 1.0)
    floor = np.exp2(1.0 - m)
    p = np.where(reachable, np.clip(2 * tail, np.minimum(floor, upper), upper), floor)
    return np.where(m >= 2, np.minimum(p, 1.0), 1.0)


def _solve(x: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Root t >= 0 of sum x tanh(t x) = s, `[test]`.

    The left side is concave in t, so Newton steps from zero climb to the root without overshooting it.
    """
    t = np.zeros(len(x))
    active = np.flatnonzero(s > 0)
    for _ in range(200):
        if not active.size:
            break
        tx = np.minimum(t[active, None] * x[active], 350.0)
        slope = (x[active] ** 2 / np.cosh(tx) ** 2).sum(axis=1)
        missing = s[active] - (x[active] * np.tanh(tx)).sum(axis=1)
        move = np.where(slope > 0, missing / np.where(slope > 0, slope, 1.0), 0.0)
        t[active] += np.maximum(move, 0.0)
        active = active[move > 1e-12 * t[active]]
    return t


def signflip_p(
    values: ArrayLike, rng: np.random.Generator, draws: int = 10_000, groups: ArrayLike | None = None
) -> np.ndarray:
    """Two-sided sign-flip p of each test by the best road open to it.

    Exact up to 20 non-zero values; beyond, sampled, and where fewer than 20 draws reached the observed sum
    the saddlepoint tail, which sampling cannot resolve.

    Parameters
    ----------
    values : float `[test, cell]`
        Response of one target in each cell, zeros included.
    rng : numpy Generator
    draws : int
        Sign patterns sampled for tests with more than 20 non-zero values.
    groups : labels `[cell]`, optional
        Donors or batches that are flipped as one.

    Returns
    -------
    float64 `[test]`
    """
    values = _checked(values) if groups is None else group_sums(values, groups)
    m = np.count_nonzero(values, axis=1)
    few = m <= 20
    p = np.ones(len(values))
    p[few] = exact_p(values[few])
    if not few.all():
        many = values[~few]
        large = sampled_p(many, draws, rng)
        rare = large < 20 / (draws + 1)
        large[rare] = saddlepoint_p(many[rare])
        p[~few] = large
    return p


def _checked(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ScircuitError(f"values have shape {values.shape}; give [test, cell].")
    if not np.isfinite(values).all():
        raise ScircuitError("values hold NaN or infinity; drop or repair those cells before testing.")
    return values
