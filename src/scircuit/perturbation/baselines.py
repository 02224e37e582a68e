"""What one would predict without the circuit: the methods that it has to beat.

Every baseline is a `Score`: signed (negative: falls) and a magnitude (who responds).
"""

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.errors import ScircuitError
from scircuit.perturbation.metrics import Score
from scircuit.perturbation.screen import Screen, dense
from scircuit.perturbation.truth import Truth


def always_down(truth: Truth) -> Score:
    """Every gene falls, all alike."""
    return _falling(np.ones(truth.score.shape))


def gene_majority(truth: Truth) -> Score:
    """What the gene did under the other knock-downs: mean sign, and share in which it responded.

    All knock-downs of the same gene (guides, enhancers) are left out together.
    """
    measured = truth.measured.astype(np.float64)
    responded = (truth.sign != 0).astype(np.float64)
    group, _ = pd.factorize(truth.knockdowns["gene"])

    def others(values: np.ndarray) -> np.ndarray:
        own = np.zeros((group.max() + 1, values.shape[1]))
        np.add.at(own, group, values)
        return values.sum(axis=0) - own[group]

    n = np.maximum(others(measured), 1.0)
    return Score(others(truth.sign.astype(np.float64)) / n, others(responded) / n)


def mean_expression(screen: Screen, truth: Truth) -> Score:
    """The higher a gene is expressed in control cells, the further it falls."""
    total, n = np.zeros(len(screen.genes)), 0
    for cells, values in screen.chunks():
        control = values[np.flatnonzero(screen.label[cells] < 0)]
        total += control.sum(axis=0)
        n += control.shape[0]
    level = _columns(total[None, :] / n, screen.genes, truth.genes)
    return _falling(np.repeat(level, len(truth.knockdowns), axis=0))


def coexpression(screen: Screen, truth: Truth) -> tuple[Score, Score]:
    """Signed and absolute co-expression with the targeted gene in control cells.

    Signed: a gene that rises and falls with the target falls with it, score = -r. Absolute: -|r|. r is the Pearson
    correlation of log1p counts per ten thousand, centred within strata; 0 where the target is not in the matrix.
    """
    targets, row = _targets(truth)
    place = screen.genes.get_indexer(targets)
    if (place < 0).all():
        raise ScircuitError("none of the knocked-down genes is a column of the screen; co-expression is undefined.")
    r = np.zeros((len(targets), len(screen.genes)))
    r[place >= 0] = _control_correlation(screen, place[place >= 0])
    r = _columns(r, screen.genes, truth.genes)[row]
    return Score(-r, np.abs(r)), _falling(np.abs(r))


def from_table(table: pd.DataFrame, truth: Truth) -> Score:
    """Scores a user supplies for `target, gene, score`, for example a deletion of the gene's token from the model.

    Pairs that are absent get 0.
    """
    missing = [name for name in ("target", "gene", "score") if name not in table]
    if missing:
        raise ScircuitError(f"the table of scores has no column {missing[0]!r}; it needs target, gene, score.")
    targets, row_of_knockdown = _targets(truth)
    row, column = targets.get_indexer(pd.Index(table["target"])), truth.genes.get_indexer(pd.Index(table["gene"]))
    known = (row >= 0) & (column >= 0)
    if not known.any():
        raise ScircuitError("the table of scores shares no (target, gene) with the screen; check the gene names.")
    signed = np.zeros((len(targets), len(truth.genes)))
    signed[row[known], column[known]] = table["score"].to_numpy(np.float64)[known]
    signed = signed[row_of_knockdown]
    return Score(signed, np.abs(signed))


def _control_correlation(screen: Screen, place: np.ndarray) -> np.ndarray:
    """Pearson r `[target, gene]` over control cells, means taken per stratum, in one pass."""
    n_strata, n_genes = len(screen.strata), len(screen.genes)
    product = np.zeros((len(place), n_genes))
    square, total, n = np.zeros(n_genes), np.zeros((n_strata, n_genes)), np.zeros(n_strata)
    for cells, values in screen.chunks():
        control = np.flatnonzero(screen.label[cells] < 0)
        part = values[control].log1p() if sparse.issparse(values) else np.log1p(values[control])
        part = part.astype(np.float64)
        product += (part.T @ dense(part[:, place])).T
        square += (part * part).sum(axis=0)
        stratum = screen.stratum[cells][control]
        indicator = sparse.csr_array(
            (np.ones(len(control)), (stratum, np.arange(len(control)))), shape=(n_strata, len(control))
        )
        total += dense(indicator @ part)
        n += np.bincount(stratum, minlength=n_strata)
    mean = total / np.maximum(n, 1)[:, None]
    covariance = product - (n[:, None] * mean[:, place]).T @ mean
    variance = np.maximum(square - (n[:, None] * mean**2).sum(axis=0), 0.0)
    norm = np.sqrt(variance[place])[:, None] * np.sqrt(variance)[None, :]
    return np.divide(covariance, norm, out=np.zeros_like(covariance), where=norm > 1e-12)


def _targets(truth: Truth) -> tuple[pd.Index, np.ndarray]:
    """The genes that were knocked down, and which of them each knock-down targets."""
    row, targets = pd.factorize(truth.knockdowns["gene"])
    return pd.Index(targets), row


def _columns(values: np.ndarray, have: pd.Index, want: pd.Index) -> np.ndarray:
    """The wanted columns of `values`, 0 where there is none."""
    place = have.get_indexer(want)
    return np.where(place >= 0, values[:, np.maximum(place, 0)], 0.0)


def _falling(magnitude: np.ndarray) -> Score:
    return Score(-magnitude, magnitude)
