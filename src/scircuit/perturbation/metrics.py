"""How well scores of genes agree with what one knock-down did: accuracy, AUROC, AUPRC, Spearman."""

from typing import NamedTuple

import numpy as np

METRICS = ("direction", "auroc", "auprc", "auroc_direction", "spearman")


class Score(NamedTuple):
    """What a method says about genes.

    `signed` is float `[knockdown, gene]`, negative where a gene should fall; `magnitude` ranks who responds, |signed|
    where a method has nothing better.
    """

    signed: np.ndarray
    magnitude: np.ndarray


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """Probability that a positive has the higher score, ties counting half; NaN with one class only."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return np.nan
    rank_sum = _ranks(score)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def auprc(positive: np.ndarray, score: np.ndarray) -> float:
    """Average precision over thresholds, equal scores entering together; NaN with one class only.

    sum_k (R_k - R_(k-1)) P_k over distinct scores, as in `sklearn.metrics.average_precision_score`.
    """
    n_positive = int(positive.sum())
    if n_positive in (0, len(positive)):
        return np.nan
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    precision = hits[last] / (last + 1)
    recall = hits[last] / n_positive
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, NaN where either side is constant."""
    if len(x) < 3:
        return np.nan
    a, b = _ranks(x) - (len(x) + 1) / 2, _ranks(y) - (len(y) + 1) / 2
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else np.nan


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values at their mean rank, NaN where any is: `scipy.stats.rankdata` without its overhead."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    return np.where(np.isnan(x).any(), np.nan, (np.cumsum(count) - (count - 1) / 2)[place])


def agreement(
    sign: np.ndarray,
    strength: np.ndarray,
    signed: np.ndarray,
    magnitude: np.ndarray,
    judged: np.ndarray,
    one_sided: bool,
) -> list[float]:
    """The metrics of one method on one knock-down, in the order of `METRICS`; all arrays `[gene]`.

    `direction`: share of the genes in `judged` that respond and go the predicted way, a method without opinion getting
    half. `auroc`, `auprc`: who responds, by magnitude. `auroc_direction`: who rises among those that respond, by
    signed score. `spearman`: signed score with the measured strength over all genes. With one-sided truths only the
    second and third are defined, and they rank by the score in the listed direction.
    """
    responds = sign != 0
    if one_sided:
        listed = 1.0 if (sign > 0).any() else -1.0
        return [np.nan, auroc(responds, listed * signed), auprc(responds, listed * signed), np.nan, np.nan]
    called = responds & judged
    right = np.where(signed[called] == 0, 0.5, np.sign(signed[called]) == sign[called])
    return [
        float(right.mean()) if len(right) else np.nan,
        auroc(responds, magnitude),
        auprc(responds, magnitude),
        auroc(sign[responds] > 0, signed[responds]),
        spearman(signed, strength),
    ]
