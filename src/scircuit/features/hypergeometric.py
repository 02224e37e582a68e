"""The exact upper tail of the hypergeometric distribution for millions of tests at once."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln


def overlap_p(overlap: ArrayLike, set_size: ArrayLike, query_size: ArrayLike, background: int) -> np.ndarray:
    """P(X >= overlap) when `query_size` items are drawn from `background`, `set_size` of which are marked.

    The one-sided Fisher exact test of over-representation (Fisher 1935), float64 `[test]`; numbers of tests broadcast
    against each other, sizes are counted within the background. Each distinct combination of sizes is computed once:
    among millions of (query, set) pairs there are only thousands.
    """
    arrays = np.broadcast_arrays(*(np.asarray(a, dtype=np.int64) for a in (overlap, set_size, query_size)))
    k, marked, drawn = (a.ravel() for a in arrays)
    if k.size == 0:
        return np.empty(arrays[0].shape)
    width = int(max(marked.max(), drawn.max())) + 1
    code = (k * width + marked) * width + drawn
    distinct, where = np.unique(code, return_inverse=True)
    rest, n = np.divmod(distinct, width)
    first, size = np.divmod(rest, width)
    return _tail(first, size, n, background)[where].reshape(arrays[0].shape)


def overlap_p_each(overlap: ArrayLike, set_size: ArrayLike, query_size: ArrayLike, background: ArrayLike) -> np.ndarray:
    """`overlap_p` where the background differs from test to test; all int `[test]`."""
    arrays = [np.asarray(a, dtype=np.int64) for a in (overlap, set_size, query_size, background)]
    return _tail(*arrays)


def _tail(first: np.ndarray, marked: np.ndarray, drawn: np.ndarray, background: np.ndarray | int) -> np.ndarray:
    """Sum of the terms from `first` to the largest possible overlap, each from log-gammas."""
    first = np.maximum(first, np.maximum(0, drawn - (background - marked)))
    last = np.minimum(marked, drawn)
    background = np.broadcast_to(background, first.shape)
    total = _log_choose(background, drawn)
    out = np.zeros(len(first))
    for step in range(int((last - first).max(initial=-1)) + 1):
        at = first + step
        inside = at <= last
        i, m, n = at[inside], marked[inside], drawn[inside]
        out[inside] += np.exp(_log_choose(m, i) + _log_choose(background[inside] - m, n - i) - total[inside])
    return np.minimum(out, 1.0)


def _log_choose(n: ArrayLike, k: ArrayLike) -> np.ndarray:
    n, k = np.asarray(n, dtype=np.float64), np.asarray(k, dtype=np.float64)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
