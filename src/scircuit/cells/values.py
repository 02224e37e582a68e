"""What the values of a matrix are: counts, estimates of counts, logarithms, rounded rates, ones and zeros."""

import numpy as np
from scipy import sparse

NOISE = 1e-3
"""Distance from a whole number within which a value is that number."""
MOST_LOG = 20.0
"""log1p of anything that a cell can hold is below; e^20 is five hundred million."""
_FEW = 100
"""Values below which nothing is told of them."""


def near_whole(values: np.ndarray) -> np.ndarray:
    """Values that are whole numbers but for floating-point noise, bool."""
    return np.abs(values - np.round(values)) <= NOISE


def logarithm(block: sparse.csr_matrix) -> str | None:
    """`log1p`, `log2` or `log10` if the values are that logarithm of 1 + counts divided by a factor per cell, or None.

    Then, with the logarithm undone, values are whole, or every cell sums to one total, or the values of a cell are
    multiples of its smallest, which is one count.
    """
    values = block.data
    if not len(values) or values.min() < 0 or values.max() > MOST_LOG or near_whole(values).all():
        return None
    for name, base in (("log1p", np.e), ("log2", 2.0), ("log10", 10.0)):
        linear = block.copy()
        linear.data = np.expm1(values * np.log(base))
        off = np.abs(linear.data - np.round(linear.data)) / np.maximum(linear.data, 1)
        if (off <= 1e-4).all() or one_total(linear, 0.01) or _multiples(linear) > 0.9:
            return name
    return None


def is_whole(block: sparse.csr_matrix) -> bool:
    """Whether there are values, and all are non-negative whole numbers."""
    return len(block.data) > 0 and bool((near_whole(block.data) & (block.data > -NOISE)).all())


def is_rounded_rate(block: sparse.csr_matrix) -> bool:
    """Whether whole numbers are rounded CPM or the like: cells sum to one total, and one count is several units."""
    smallest = [cell.min() for cell in _cells(block)]
    return (
        len(block.data) >= _FEW and float(np.median(smallest)) >= 2
        and one_total(block, 0.01) and not one_total(block, 0.0)
    )  # fmt: skip


def is_binary(block: sparse.csr_matrix) -> bool:
    """Whether there is nothing but 0 and 1, where there is enough to tell."""
    return len(block.data) >= _FEW and bool((block.data == 1).all())


def one_total(block: sparse.csr_matrix, spread: float) -> bool:
    """Whether at least three cells sum to the same, within `spread` of it."""
    totals = np.asarray(block.sum(axis=1)).ravel()
    totals = totals[totals > 0]
    return len(totals) >= 3 and float(np.ptp(totals)) <= spread * float(np.median(totals))


def _multiples(block: sparse.csr_matrix) -> float:
    """Share of values that are, within rounding, multiples of the smallest of their cell.

    Multiples above 20 are left out: there every value is near one, whatever it is.
    """
    ratios = np.concatenate([cell / cell.min() for cell in _cells(block)])
    told = ratios[(ratios > 1) & (ratios < 20)]
    told = told[~np.isclose(told, 1, atol=0.02)]
    if not len(told):
        return 1.0 if len(ratios) else 0.0
    return float((np.abs(told - np.round(told)) <= 0.02).mean())


def _cells(block: sparse.csr_matrix) -> list[np.ndarray]:
    """Non-zero values of every cell that has some."""
    spans = zip(block.indptr[:-1], block.indptr[1:], strict=True)
    return [block.data[start:stop] for start, stop in spans if start < stop]
