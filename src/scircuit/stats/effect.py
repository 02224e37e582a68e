"""Standardised effects over cells: small-sample correction and confidence interval of a one-sample d."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, ndtri

from scircuit.errors import ScircuitError


class Standardised(NamedTuple):
    """Hedges' g and the interval of d's population value, float64 `[test]`; NaN below three cells."""

    g: np.ndarray
    low: np.ndarray
    high: np.ndarray


def hedges(d: ArrayLike, n_cells: ArrayLike, level: float = 0.95) -> Standardised:
    """Unbiased effect and confidence interval of d = mean / sd over cells.

    g = J d with J = gamma(m / 2) / (sqrt(m / 2) gamma((m - 1) / 2)), m = n - 1 (Hedges 1981): d is too
    large by 4 % at 20 cells, 8 % at 10. The interval is g +- z sqrt(1 / n + g^2 / (2 n)), the
    large-sample variance of a one-sample standardised mean.

    Parameters
    ----------
    d : float `[test]`
        Cohen's d with ddof 1.
    n_cells : int `[test]`
        Cells in which the source fires.
    level : float
        Coverage, in (0, 1).
    """
    if not 0 < level < 1:
        raise ScircuitError(f"level is {level}; give a coverage between 0 and 1, for example 0.95.")
    d, n = np.broadcast_arrays(np.asarray(d, dtype=np.float64), np.asarray(n_cells, dtype=np.float64))
    m = np.where(n >= 3, n - 1, np.nan)
    g = d * np.exp(gammaln(m / 2) - gammaln((m - 1) / 2)) / np.sqrt(m / 2)
    half = ndtri((1 + level) / 2) * np.sqrt(1 / np.where(n > 0, n, np.nan) * (1 + g**2 / 2))
    return Standardised(g, g - half, g + half)
