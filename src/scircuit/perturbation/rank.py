"""Stratified Wilcoxon rank-sum test of every perturbation against the controls of its own strata.

Every perturbation shares the controls of a stratum, so they are sorted once and each treated cell is placed among
them by bisection: the statistic of all perturbations costs one sort per gene, with exact ties. With one stratum the
result is that of `scipy.stats.mannwhitneyu(method="asymptotic", use_continuity=False)`.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from scircuit._progress import progress
from scircuit.perturbation.screen import Screen
from scircuit.perturbation.statistics import usable_cells


class RankTest(NamedTuple):
    """Result per perturbation and gene, float64 `[label, gene]`.

    `auc` is the share of (treated cell, control of the same stratum) pairs in which the treated cell is higher, ties
    counting half; `z` > 0 means higher than controls; `p_value` is two-sided.
    """

    auc: np.ndarray
    z: np.ndarray
    p_value: np.ndarray


class _Groups(NamedTuple):
    """Treated cells sorted by group; a group is one perturbation in one stratum."""

    order: np.ndarray  # int64 [treated]: positions in the screen
    group: np.ndarray  # int64 [treated]: group of each, ascending
    key: np.ndarray  # uint64 [treated]: group in the upper 32 bits
    start: np.ndarray  # int64 [group]: first cell of each group
    label: np.ndarray  # int64 [group]
    stratum: np.ndarray  # int64 [group]
    members: list[np.ndarray]  # per stratum, positions in `order`
    n_treated: np.ndarray  # float64 [group]
    n_control: np.ndarray  # float64 [group]


def wilcoxon(screen: Screen, memory: float = 2e9) -> RankTest:
    """Wilcoxon rank-sum test per (perturbation, gene), strata combined after van Elteren.

    z = sum_b w_b (U_b - n_b m_b / 2) / sqrt(sum_b w_b^2 V_b) with w_b = 1 / (n_b + m_b + 1) over strata b with n_b
    treated and m_b control cells, V_b = n_b m_b / 12 ((N_b + 1) - sum (t^3 - t) / (N_b (N_b - 1))) the variance of U_b
    with ties t (van Elteren 1960). Genes without any variation get z = 0, p = 1. Values are compared after depth
    normalisation where the matrix holds counts; each block of genes, of `memory` bytes, is one pass over the file.
    """
    groups = _groups(screen)
    controls = [
        np.flatnonzero((screen.label < 0) & (screen.stratum == stratum)) for stratum in range(len(screen.strata))
    ]
    n_labels, n_genes = len(screen.labels), len(screen.genes)
    auc, z = np.full((n_labels, n_genes), 0.5), np.zeros((n_labels, n_genes))
    bar = progress(total=n_genes, desc="Wilcoxon", unit="gene")
    for genes, block in screen.gene_blocks(memory):
        for offset, values in enumerate(block):
            auc[:, genes.start + offset], z[:, genes.start + offset] = _one_gene(values, groups, controls, n_labels)
            bar.update()
    bar.close()
    return RankTest(auc, z, 2 * ndtr(-np.abs(z)))


def _groups(screen: Screen) -> _Groups:
    treated = np.flatnonzero((screen.label >= 0) & usable_cells(screen))
    n_strata = len(screen.strata)
    code = screen.label[treated].astype(np.int64) * n_strata + screen.stratum[treated]
    sort = np.argsort(code, kind="stable")
    codes, start, count = np.unique(code[sort], return_index=True, return_counts=True)
    n_control = np.bincount(screen.stratum[screen.label < 0], minlength=n_strata)
    group = np.repeat(np.arange(len(codes)), count)
    stratum_of_cell = codes[group] % n_strata
    return _Groups(
        order=treated[sort],
        group=group,
        key=group.astype(np.uint64) << np.uint64(32),
        members=[np.flatnonzero(stratum_of_cell == stratum) for stratum in range(n_strata)],
        start=start,
        label=codes // n_strata,
        stratum=codes % n_strata,
        n_treated=count.astype(np.float64),
        n_control=n_control[codes % n_strata].astype(np.float64),
    )


def _one_gene(
    values: np.ndarray, groups: _Groups, controls: list[np.ndarray], n_labels: int
) -> tuple[np.ndarray, np.ndarray]:
    """(auc, z) of all labels for one gene; `values` is `[cell]`."""
    treated = _sorted_within_groups(values, groups)
    below, equal = np.empty(len(treated)), np.empty(len(treated))
    control_ties = np.zeros(len(controls))
    for stratum, member in enumerate(groups.members):
        if not len(member):
            continue
        control = np.sort(values[controls[stratum]])
        first = np.searchsorted(control, treated[member], side="left")
        last = np.searchsorted(control, treated[member], side="right")
        below[member], equal[member] = first, last - first
        run = np.diff(np.flatnonzero(np.r_[True, control[1:] != control[:-1], True]))
        control_ties[stratum] = _tie_terms(run).sum()
    u = np.add.reduceat(below + equal / 2, groups.start)
    ties = control_ties[groups.stratum] + _joint_ties(treated, equal, groups)
    return _combine(u, ties, groups, n_labels)


def _sorted_within_groups(values: np.ndarray, groups: _Groups) -> np.ndarray:
    """Treated values, ascending within each group; groups keep their places.

    One sort of integers: the bits of non-negative float32 order like the numbers, below the number of the group.
    """
    key = groups.key | (values[groups.order] + np.float32(0)).view(np.uint32)
    key.sort()
    return (key & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)


def _joint_ties(treated: np.ndarray, equal: np.ndarray, groups: _Groups) -> np.ndarray:
    """What the treated cells of a group add to the tie term of its controls, `[group]`."""
    first = np.flatnonzero(np.r_[True, (treated[1:] != treated[:-1]) | (groups.key[1:] != groups.key[:-1])])
    n_equal = np.diff(np.r_[first, len(treated)])
    c = equal[first]
    return np.bincount(
        groups.group[first], weights=_tie_terms(c + n_equal) - _tie_terms(c), minlength=len(groups.start)
    )


def _combine(u: np.ndarray, ties: np.ndarray, groups: _Groups, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    n, m = groups.n_treated, groups.n_control
    size = n + m
    variance = n * m / 12 * ((size + 1) - ties / (size * (size - 1)))
    weight = 1 / (size + 1)

    def per_label(values: np.ndarray) -> np.ndarray:
        return np.bincount(groups.label, weights=values, minlength=n_labels)

    spread = np.sqrt(np.maximum(per_label(weight**2 * variance), 0.0))
    shift = per_label(weight * (u - n * m / 2))
    pairs = per_label(n * m)
    z = np.divide(shift, spread, out=np.zeros(n_labels), where=spread > 1e-12)
    return np.divide(per_label(u), pairs, out=np.full(n_labels, 0.5), where=pairs > 0), z


def _tie_terms(count: np.ndarray) -> np.ndarray:
    count = np.asarray(count, dtype=np.float64)
    return count**3 - count
