"""What perturbations really did: from differential expression, from gene sets, or from a table of one's own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scircuit.errors import ScircuitError
from scircuit.perturbation.differential import Effects

LEAST_CHANGE = 0.01
"""|log2 fold change| from which a gene responds where there is no test (arXiv 2603.01752, CRISPRi validation)."""


@dataclass(frozen=True)
class Truth:
    """Measured responses to knock-downs."""

    knockdowns: pd.DataFrame
    """`label, gene`: one row per knock-down and the gene it targets."""
    genes: pd.Index
    """Index `[gene]`: genes with a measurement in any knock-down."""
    sign: np.ndarray
    """int8 `[knockdown, gene]`: -1 falls, +1 rises, 0 does not respond (or not measured)."""
    score: np.ndarray
    """float64 `[knockdown, gene]`: strength with sign (log2 fold change, or the sign itself); NaN where not measured.
    The knocked-down gene itself counts as not measured: that it falls is the intervention, not a prediction."""
    one_sided: bool
    """Only rises are listed (or only falls): an unlisted gene did not necessarily stay."""

    @property
    def measured(self) -> np.ndarray:
        """Where there is a measurement, bool `[knockdown, gene]`."""
        return np.isfinite(self.score)


def truth_from_effects(effects: Effects, alpha: float = 0.05, min_abs_log2_fold_change: float = 0.0) -> Truth:
    """Responding genes of a screen: q < `alpha` and |log2 fold change| of at least the limit.

    Effects of the `paper` method have no test: there every gene with |log2 fold change| >= 0.01 responds.
    """
    lfc = effects.log2_fold_change
    if effects.method == "paper":
        responds = np.abs(lfc) >= max(LEAST_CHANGE, min_abs_log2_fold_change)
    else:
        responds = (effects.q_value < alpha) & (np.abs(lfc) >= min_abs_log2_fold_change)
    truth = _truth(effects.perturbations[["label", "gene"]], effects.genes, np.where(responds, np.sign(lfc), 0), lfc)
    if not truth.sign.any():
        raise ScircuitError(
            f"no gene responds to any perturbation at q < {alpha:g}; there is nothing to predict: relax alpha, or "
            "use a screen with more cells per target."
        )
    return truth


def truth_from_table(table: pd.DataFrame) -> Truth:
    """A table of one's own: `target, gene` and `sign` (-1, 0, 1) or `score` (its sign is taken), or both.

    Rows that are absent were not measured.
    """
    missing = [name for name in ("target", "gene") if name not in table]
    if missing or not {"sign", "score"} & set(table):
        raise ScircuitError(
            f"a table of truths needs the columns target, gene and sign or score (it has {', '.join(map(str, table))})."
        )
    if (repeated := table.duplicated(["target", "gene"])).any():
        first = table[repeated].iloc[0]
        raise ScircuitError(
            f"the table lists {first['target']} -> {first['gene']} more than once; keep one condition or average."
        )
    score = table["score" if "score" in table else "sign"].to_numpy(np.float64)
    sign = table["sign"].to_numpy(np.float64) if "sign" in table else np.sign(score)
    if not np.isin(sign, (-1, 0, 1)).all():
        raise ScircuitError("the column sign must hold -1 (falls), 0 (no response) or 1 (rises); fix the others.")
    row, targets = pd.factorize(table["target"], sort=True)
    column, genes = pd.factorize(table["gene"], sort=True)
    wide = np.full((2, len(targets), len(genes)), np.nan)
    wide[0, row, column], wide[1, row, column] = sign, score
    knockdowns = pd.DataFrame({"label": targets, "gene": targets})
    return _truth(knockdowns, pd.Index(genes), np.nan_to_num(wide[0]), wide[1])


def truth_from_gene_sets(rises: Mapping[str, Iterable[str]], measured: Iterable[str]) -> Truth:
    """Knock-downs of which only the rising genes are known, over the genes that were measured.

    Absence from the set is not evidence of a fall: the truth is one-sided, and the validation asks who rises.
    """
    genes = pd.Index(sorted(set(measured)))
    targets = sorted(rises)
    sign = np.stack([genes.isin(list(rises[target])) for target in targets]).astype(np.float64)
    return _truth(pd.DataFrame({"label": targets, "gene": targets}), genes, sign, sign.copy())


def _truth(knockdowns: pd.DataFrame, genes: pd.Index, sign: np.ndarray, score: np.ndarray) -> Truth:
    score = np.array(score, dtype=np.float64)
    own = genes.get_indexer(pd.Index(knockdowns["gene"]))
    score[np.flatnonzero(own >= 0), own[own >= 0]] = np.nan
    sign = np.where(np.isfinite(score), sign, 0).astype(np.int8)
    present = set(np.unique(sign)) - {0}
    return Truth(knockdowns.reset_index(drop=True), genes, sign, score, one_sided=len(present) == 1)
