"""The published comparison with a screen: in which share of pooled gene pairs the signs agree, beside its own nulls.

Pooling counts a knock-down as often as it has pairs, and a circuit whose predictions mostly fall agrees with a screen
that mostly falls whatever its edges are. So the share stands beside what the shares of falls alone give.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from scircuit.errors import ScircuitError
from scircuit.perturbation.differential import Effects
from scircuit.perturbation.truth import LEAST_CHANGE
from scircuit.stats.resampling import Interval, cluster_bootstrap


@dataclass(frozen=True)
class Concordance:
    """Pooled agreement of signs."""

    pairs: pd.DataFrame
    """The judged pairs: `source_gene, target_gene, n_edges, mean_d, mean_abs_d, log2_fold_change`."""
    accuracy: Interval
    always_down: Interval
    sign_bias: Interval
    """Share of pairs whose signs agree, for the circuit, for predicting a fall everywhere, and expected of signs drawn
    with the circuit's own share of falls: P(pred < 0) P(obs < 0) + P(pred > 0) P(obs > 0). Intervals by bootstrap over
    knocked-down genes."""
    excess: Interval
    """Accuracy minus the higher of the two nulls."""
    rho: float
    rho_p: float
    """Spearman correlation of |mean d| and |log2 fold change|; its p takes pairs for independent, as published."""

    def table(self) -> pd.DataFrame:
        """`method, estimate, low, high, n_pairs, n_knockdowns`, the circuit first."""
        rows = {"circuit": self.accuracy, "always down": self.always_down, "sign bias": self.sign_bias}
        table = pd.DataFrame([(method, *interval[:3]) for method, interval in rows.items()])
        table = table.set_axis(["method", "estimate", "low", "high"], axis=1)
        return table.assign(n_pairs=len(self.pairs), n_knockdowns=self.accuracy.n_clusters)

    def sentence(self) -> str:
        """What may be said, from the excess over the higher null."""
        bias_is_higher = self.sign_bias.estimate > self.always_down.estimate
        null, name = (self.sign_bias, "sign bias") if bias_is_higher else (self.always_down, "always down")
        if np.isnan(self.excess.low):
            ending = "one knocked-down gene gives no interval, so nothing is said of skill"
        else:
            bounds = f"({self.excess.low:.3f} to {self.excess.high:.3f})"
            known = "the circuit agrees more often" if self.excess.low > 0 else "no skill is shown"
            ending = f"the difference is {self.excess.estimate:.3f} {bounds}: {known}"
        return (
            f"Pooled sign accuracy as published, over {len(self.pairs):,} gene pairs of {self.accuracy.n_clusters} "
            f"knocked-down gene{'s' * (self.accuracy.n_clusters != 1)}, is {self.accuracy.estimate:.3f}; the shares of "
            f"falls alone give {null.estimate:.3f} ({name}), and {ending}."
        )


def pooled_concordance(pairs: pd.DataFrame, effects: Effects, draws: int = 2000, seed: int = 0) -> Concordance:
    """Share of gene pairs where sign(mean d) equals sign(log2 fold change), pooled over all knock-downs.

    A knock-down is read as an ablation: d < 0 says that the target falls. `pairs` (of `paper_gene_pairs`) are judged
    where the target gene is measured and |log2 fold change| >= 0.01 (arXiv 2603.01752, CRISPRi validation), by the fold
    change of `differential_expression(screen, "paper")`. The first label of a gene counts. Intervals draw knocked-down
    genes.
    """
    genes = pd.Index(effects.perturbations["gene"])
    first = np.flatnonzero(~genes.duplicated())
    row = genes[first].get_indexer(pd.Index(pairs["source_gene"]))
    column = effects.genes.get_indexer(pd.Index(pairs["target_gene"]))
    known = (row >= 0) & (column >= 0)
    change = np.full(len(pairs), np.nan)
    change[known] = effects.log2_fold_change[first[row[known]], column[known]]
    judged = np.abs(change) >= LEAST_CHANGE
    if not judged.any():
        raise ScircuitError(
            "no pair of genes that the published weighting predicts was measured in the screen with |log2 fold "
            f"change| >= {LEAST_CHANGE:g}; use a screen of genes that the circuit's sources carry."
        )
    kept = pairs[judged].assign(log2_fold_change=change[judged]).reset_index(drop=True)
    sums = _sums(kept)
    higher = _sign_bias if _sign_bias(sums.sum(axis=0)) > _always_down(sums.sum(axis=0)) else _always_down

    def interval(statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
        return cluster_bootstrap(sums, statistic, np.random.default_rng(seed), draws)

    sizes = kept[["mean_d", "log2_fold_change"]].abs()
    defined = len(kept) > 2 and (sizes.nunique() > 1).all()
    rho = spearmanr(sizes["mean_d"], sizes["log2_fold_change"]) if defined else (np.nan, np.nan)
    return Concordance(
        pairs=kept,
        accuracy=interval(_accuracy),
        always_down=interval(_always_down),
        sign_bias=interval(_sign_bias),
        excess=interval(lambda totals: _accuracy(totals) - higher(totals)),
        rho=float(rho[0]),
        rho_p=float(rho[1]),
    )


def _sums(kept: pd.DataFrame) -> np.ndarray:
    """Counts per knocked-down gene, `[gene, (pairs, agree, obs < 0, obs > 0, pred < 0, pred > 0)]`."""
    predicted, observed = np.sign(kept["mean_d"].to_numpy()), np.sign(kept["log2_fold_change"].to_numpy())
    every = np.ones(len(kept))
    counted = (every, predicted == observed, observed < 0, observed > 0, predicted < 0, predicted > 0)
    group, _ = pd.factorize(kept["source_gene"])
    return np.column_stack([np.bincount(group, weights=values) for values in counted])


def _accuracy(totals: np.ndarray) -> np.ndarray:
    return totals[..., 1] / totals[..., 0]


def _always_down(totals: np.ndarray) -> np.ndarray:
    return totals[..., 2] / totals[..., 0]


def _sign_bias(totals: np.ndarray) -> np.ndarray:
    return (totals[..., 2] * totals[..., 4] + totals[..., 3] * totals[..., 5]) / totals[..., 0] ** 2
