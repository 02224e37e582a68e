"""Intervals of shares that were counted."""

import numpy as np


def wilson(n_found: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of independent trials (Wilson 1927); NaN of none. A trial may count half."""
    if n == 0:
        return np.nan, np.nan
    share = n_found / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))
