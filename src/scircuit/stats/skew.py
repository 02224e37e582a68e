"""Skewed values: how skewed they are, and the p of their mean with that taken into account.

Sign flips and t alike ask for symmetry about zero. Where many small values of one sign balance few large ones of the
other, a draw without the large ones looks like an effect, and neither test can tell.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr


def skewness(values: ArrayLike, group: ArrayLike, n_groups: int) -> np.ndarray:
    """Third standardised moment of the values of each group, float64 `[group]`.

    0 where all values of a group are equal, NaN where it has none.
    """
    x, code = np.asarray(values, dtype=np.float64), np.asarray(group)
    n = np.bincount(code, minlength=n_groups).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = x - (np.bincount(code, x, n_groups) / n)[code]
        square, cube = (np.bincount(code, centred**power, n_groups) / n for power in (2, 3))
        # What rounding leaves of equal values is no spread.
        spread = square > 1e-24 * np.bincount(code, x**2, n_groups) / n
        return np.where(spread, cube / np.where(spread, square, 1.0) ** 1.5, np.where(n > 0, 0.0, np.nan))


def unskewed_p(n: ArrayLike, mean: ArrayLike, sd: ArrayLike, skew: ArrayLike) -> np.ndarray:
    """Two-sided p of mean 0 by the t of Hall (1992, J R Stat Soc B 54:221), from which the skewness is removed.

    With u = mean / sd, T = sqrt(n) (u + g u^2 / 3 + g^2 u^3 / 27 + g / (6 n)), on n - 1 degrees of freedom: as exact as
    a bootstrap of t, and not bounded below by a number of draws. Values that are all equal have the sign-flip p.

    Parameters
    ----------
    n, mean, sd, skew : arrays of one shape
        Number of values, their mean, SD (ddof 1) and skewness g.

    Returns
    -------
    float64; 1 for fewer than two values.
    """
    n, mean, sd, g = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (n, mean, sd, skew)))
    enough = np.maximum(n, 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = mean / np.where(sd > 0, sd, np.nan)
        t = np.sqrt(enough) * (u + g * u**2 / 3 + g**2 * u**3 / 27 + g / (6 * enough))
    p = np.where(sd > 0, 2 * stdtr(enough - 1, -np.abs(t)), np.where(mean == 0, 1.0, np.exp2(1 - enough)))
    return np.where(n >= 2, p, 1.0)
