"""Sums over the groups of a screen in one pass, and fold changes against stratum-matched controls."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import ndtr

from scircuit._progress import progress
from scircuit.errors import ScircuitError
from scircuit.perturbation.screen import Screen

PSEUDOCOUNT = 0.1


@dataclass(frozen=True)
class GroupSums:
    """Sufficient statistics: everything a fold change and its error need, whatever the number of cells.

    `n`, `total`, `square` are `[label]`, `[label, gene]`, `[label, gene]` over treated cells;
    `control_n`, `control_total`, `control_square` the same per stratum over controls; `weight` `[label, stratum]` is
    the share of each label's cells in each stratum. Values are counts per ten thousand.
    """

    n: np.ndarray
    total: np.ndarray
    square: np.ndarray
    control_n: np.ndarray
    control_total: np.ndarray
    control_square: np.ndarray
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
    n_groups = n_labels + n_strata
    total, square = sum_groups(screen, np.where(usable, group, -1), n_groups, raw=raw)
    n = np.bincount(group[usable], minlength=n_groups)
    treated = usable & (screen.label >= 0)
    weight = np.zeros((n_labels, n_strata))
    np.add.at(weight, (screen.label[treated], screen.stratum[treated]), 1.0)
    weight /= np.maximum(n[:n_labels, None], 1)
    return GroupSums(
        n[:n_labels], total[:n_labels], square[:n_labels], n[n_labels:], total[n_labels:], square[n_labels:], weight
    )


def sum_groups(screen: Screen, group: np.ndarray, n_groups: int, raw: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares, float64 `[group, gene]`, of the cells of each group (-1: none), in one pass."""
    total = np.zeros((n_groups, len(screen.genes)))
    square = np.zeros_like(total)
    for cells, values in progress(screen.chunks(raw=raw), desc="screen", unit="chunk"):
        member = np.flatnonzero(group[cells] >= 0)
        present, place = np.unique(group[cells][member], return_inverse=True)
        indicator = sparse.csr_array((np.ones(len(member)), (place, member)), shape=(len(present), values.shape[0]))
        values = values.astype(np.float64)
        squared = values.multiply(values).tocsr() if sparse.issparse(values) else values * values
        for store, part in ((total, indicator @ values), (square, indicator @ squared)):
            if sparse.issparse(part):
                part = part.tocoo()
                store[present[part.row], part.col] += part.data
            else:
                store[present] += part
    return total, square


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
    mean, variance = _moments(sums.n, sums.total, sums.square)
    stratum_mean, stratum_variance = _moments(sums.control_n, sums.control_total, sums.control_square)
    per_stratum = stratum_variance / np.maximum(sums.control_n, 1)[:, None]
    mean_control = sums.weight @ stratum_mean
    error_control = (sums.weight**2) @ per_stratum
    relative = variance / np.maximum(sums.n, 1)[:, None] / (mean + pseudocount) ** 2
    relative_control = error_control / (mean_control + pseudocount) ** 2
    return FoldChange(
        mean=mean,
        mean_control=mean_control,
        log2_fold_change=np.log2((mean + pseudocount) / (mean_control + pseudocount)),
        standard_error=np.sqrt(relative + relative_control) / np.log(2),
        n_controls=((sums.weight > 0) @ sums.control_n).astype(np.int64),
    )


def paper_fold_change(sums: GroupSums) -> np.ndarray:
    """log2(mean X + 1) of treated cells minus the same of all controls, X as stored, `[label, gene]`.

    The published definition (arXiv 2603.01752, CRISPRi validation): no matching, no error, no test. `sums` must come
    from `group_sums(raw=True)`.
    """
    treated = sums.total / np.maximum(sums.n, 1)[:, None]
    control = sums.control_total.sum(axis=0) / sums.control_n.sum()
    return np.log2(treated + 1) - np.log2(control + 1)


def on_target(screen: Screen, sums: GroupSums | None = None) -> pd.DataFrame:
    """How far the expression of each targeted gene falls in its own cells.

    Returns
    -------
    DataFrame
        One row per perturbation: `label, gene, n_cells, n_controls, measured, mean, mean_control,
        log2_fold_change, standard_error, p_fall` (one-sided, normal); NaN where the gene is not in the matrix.
    """
    sums = group_sums(screen) if sums is None else sums
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
        n_cells=sums.n,
        n_controls=change.n_controls,
        measured=measured,
        mean=pick(change.mean),
        mean_control=pick(change.mean_control),
        log2_fold_change=lfc,
        standard_error=error,
        p_fall=p_fall,
    )


def effective(
    screen: Screen, max_log2_fold_change: float = -0.5, alpha: float = 0.05, sums: GroupSums | None = None
) -> Screen:
    """Keep the perturbations whose own gene falls: log2 fold change and one-sided p below the limits.

    Raises
    ------
    ScircuitError
        No targeted gene is measured, or none falls that far. Perturbations whose gene is not in the matrix cannot
        be judged and are left out.
    """
    table = on_target(screen, sums)
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


def _moments(n: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = np.maximum(n, 1)[:, None]
    mean = total / count
    variance = np.maximum(square - count * mean**2, 0.0) / np.maximum(count - 1, 1)
    return mean, variance
