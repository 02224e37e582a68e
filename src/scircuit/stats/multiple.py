"""Many tests at once: false discoveries among those kept, and the chance of any false claim."""

import numpy as np
from numpy.typing import ArrayLike

from scircuit.errors import ScircuitError


def benjamini_hochberg(p: ArrayLike, n_tests: int | None = None) -> np.ndarray:
    """Benjamini-Hochberg q-values.

    Parameters
    ----------
    p : float `[test]`
        p-values in [0, 1], any order.
    n_tests : int, optional
        Number of tests made, when only the smallest p were kept: every dropped test must have had a p at
        least as large as the largest one given. q-values are then exactly those of the whole family for
        every test with q below the retention level.

    Returns
    -------
    float64 `[test]`
        Smallest false-discovery rate at which each test is called (Benjamini & Hochberg 1995, step-up).

    Raises
    ------
    ScircuitError
        On p outside [0, 1] or NaN, or `n_tests` smaller than the number of p-values.
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1:
        raise ScircuitError(f"p-values have shape {p.shape}; give a one-dimensional array.")
    n_kept = p.size
    n_tests = n_kept if n_tests is None else int(n_tests)
    if n_tests < n_kept:
        raise ScircuitError(
            f"n_tests is {n_tests} but {n_kept} p-values were given; n_tests counts every test made, kept or not."
        )
    if n_kept == 0:
        return p.copy()
    if not (p.min() >= 0 and p.max() <= 1):
        raise ScircuitError("p-values must lie in [0, 1] without NaN; drop the tests that could not be made.")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (n_tests / np.arange(1, n_kept + 1))
    q = np.empty_like(p)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def holm(p: ArrayLike) -> np.ndarray:
    """Family-wise adjusted p-values, float64 `[test]` (Holm 1979, Scand J Stat 6:65); NaN where p is."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")  # NaN last
    n = int(np.isfinite(p).sum())
    adjusted = np.full(p.shape, np.nan)
    adjusted[order[:n]] = np.minimum(np.maximum.accumulate(p[order[:n]] * np.arange(n, 0, -1)), 1.0)
    return adjusted
