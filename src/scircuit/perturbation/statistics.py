"""Sums over the groups of a screen in one pass, and fold changes against stratum-matched controls."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import ndtr

from scircuit._progress import progress
from scircuit.errors import ScircuitError
from scircuit.perturbation.screen import Screen

PSEUDOCOUNT = 0.1


class Moments(NamedTuple):
    """Cells of each group, `[group]`, and sums and sums of squares of their values, `[group, gene]`."""

    n: np.ndarray
    total: np.ndarray
    square: np.ndarray

    def mean(self) -> np.ndarray:
        """Mean per group and gene; 0 without cells."""
        return self.total / np.maximum(self.n, 1)[:, None]

    def variance(self) -> np.ndarray:
        """Sample variance per group and gene; 0 with fewer than two cells."""
        n = np.maximum(self.n, 1)[:, None]
        return np.maximum(self.square - n * self.mean() ** 2, 0.0) / np.maximum(n - 1, 1)

    def error(self) -> np.ndarray:
        """Squared standard error of the mean."""
        return self.variance() / np.maximum(self.n, 1)[:, None]


class GroupSums(NamedTuple):
    """Sufficient statistics: everything a fold change and its error need, whatever the number of cells.

    `treated` cells by label, `control` cells by stratum; `weight` `[label, stratum]` is the share of each label's cells
    in each stratum. Values are counts per ten thousand.
    """

    treated: Moments
    control: Moments
    weight: np.ndarray


def usable_cells(screen: Screen) -> np.ndarray:
    """Cells whose stratum holds at least two controls, bool `[cell]`; the others have nothing to be compared with."""
    controls = np.bincount(screen.stratum[screen.label < 0], minlength=len(screen.strata))
    return controls[screen.stratum] >= 2


def group_sums(screen: Screen, raw: bool = False) -> GroupSums:
    """One pass over the screen. `raw` sums the stored values instead of counts per ten thousand."""
    n_labels, n_strata = len(screen.labels), len(screen.strata)
    usable = usable_cells(screen)
    group = np.where(screen.label < 0, n_labels + screen.stratum, screen.label)
    sums = sum_groups(screen, np.where(usable, group, -1), n_labels + n_strata, raw=raw)
    treated, control = (Moments(*(array[part] for array in sums)) for part in (slice(n_labels), slice(n_labels, None)))
    chosen = usable & (screen.label >= 0)
    weight = np.zeros((n_labels, n_strata))
    np.add.at(weight, (screen.label[chosen], screen.stratum[chosen]), 1.0)
    return GroupSums(treated, control, weight / np.maximum(treated.n[:, None], 1))


def sum_groups(screen: Screen, group: np.ndarray, n_groups: int, raw: bool) -> Moments:
    """Moments, float64, of the cells of each group (-1: none), in one pass."""
    total = np.zeros((n_groups, len(screen.genes)))
    square = np.zeros_like(total)
    for cells, values in progress(screen.chunks(raw=raw), desc="screen", unit="chunk"):
        member = np.flatnonzero(group[cells] >= 0)
        present, place = np.unique(group[cells][member], return_inverse=True)
        indicator = sparse.csr_array((np.ones(len(member)), (place, member)), shape=(len(present), values.shape[0]))
        values = values.astype(np.float64)
        for store, part in ((total, indicator @ values), (square, indicator @ (values * values))):
            if sparse.issparse(part):
                part = part.tocoo()
                store[present[part.row], part.col] += part.data
            else:
                store[present] += part
    return Moments(np.bincount(group[group >= 0], minlength=n_groups), total, square)


@dataclass(frozen=True)
class FoldChange:
    """Matched fold change, all float64 `[label, gene]` but `n_controls` `[label]`; means in counts per ten thousand."""

    mean: np.ndarray
    mean_control: np.ndarray
    log2_fold_change: np.ndarray
    standard_error: np.ndarray
    n_controls: np.ndarray


def fold_change(sums: GroupSums, pseudocount: float = PSEUDOCOUNT) -> FoldChange:
    """log2((m + c) / (m0 + c)), where the control mean m0 weighs strata as the treated cells do.

    m0 = sum_b w_b m0_b with w_b the share of the treated cells in stratum b; the standard error is the delta method
    on both means, Var(log2 m) = s^2 / (n (m + c)^2 ln(2)^2), strata of controls being independent. Differences between
    strata count as spread of the treated cells, which makes it too large, never too small, where strata differ.
    """
    mean, mean_control = sums.treated.mean(), sums.weight @ sums.control.mean()
    relative = sums.treated.error() / (mean + pseudocount) ** 2
    relative_control = (sums.weight**2) @ sums.control.error() / (mean_control + pseudocount) ** 2
    return FoldChange(
        mean=mean,
        mean_control=mean_control,
        log2_fold_change=np.log2((mean + pseudocount) / (mean_control + pseudocount)),
        standard_error=np.sqrt(relative + relative_control) / np.log(2),
        n_controls=((sums.weight > 0) @ sums.control.n).astype(np.int64),
    )


def paper_fold_change(sums: GroupSums) -> np.ndarray:
    """log2(mean X + 1) of treated cells minus the same of all controls, X as stored, `[label, gene]`.

    The published definition (arXiv 2603.01752, CRISPRi validation): no matching, no error, no test. `sums` must come
    from `group_sums(raw=True)`.
    """
    control = sums.control.total.sum(axis=0) / sums.control.n.sum()
    return np.log2(sums.treated.mean() + 1) - np.log2(control + 1)


def on_target(screen: Screen) -> pd.DataFrame:
    """How far the expression of each targeted gene falls in its own cells, one row per perturbation.

    `label, gene, n_cells, n_controls, measured, mean, mean_control, log2_fold_change, standard_error, p_fall`
    (one-sided, normal); NaN where the gene is not in the matrix.
    """
    sums = group_sums(screen)
    change = fold_change(sums)
    place = screen.genes.get_indexer(pd.Index(screen.labels["gene"]))
    row = np.arange(len(place))
    measured = place >= 0

    def pick(values: np.ndarray) -> np.ndarray:
        return np.where(measured, values[row, np.maximum(place, 0)], np.nan)

    lfc, error = pick(change.log2_fold_change), pick(change.standard_error)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_fall = np.where(error > 0, ndtr(lfc / error), np.where(measured, np.where(lfc < 0, 0.0, 1.0), np.nan))
    return screen.labels.assign(
        n_cells=sums.treated.n,
        n_controls=change.n_controls,
        measured=measured,
        mean=pick(change.mean),
        mean_control=pick(change.mean_control),
        log2_fold_change=lfc,
        standard_error=error,
        p_fall=p_fall,
    )


def effective(screen: Screen, max_log2_fold_change: float = -0.5, alpha: float = 0.05) -> Screen:
    """Keep the perturbations whose own gene falls: log2 fold change and one-sided p below the limits.

    Perturbations whose gene is not in the matrix cannot be judged and are left out.
    """
    table = on_target(screen)
    if not table["measured"].any():
        raise ScircuitError(
            "none of the targeted genes is a column of the matrix, so guide efficacy cannot be judged; map labels "
            "to genes with targets=..., or skip the efficacy filter."
        )
    keep = (table["log2_fold_change"] <= max_log2_fold_change) & (table["p_fall"] < alpha)
    if not keep.any():
        raise ScircuitError(
            f"no targeted gene falls by a log2 fold change of {max_log2_fold_change:g} with p < {alpha:g}; "
            "relax the limits, or check that labels name the targeted genes."
        )
    return screen.select(labels=list(table.loc[keep, "label"]))
