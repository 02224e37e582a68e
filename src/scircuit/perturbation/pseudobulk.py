"""Pseudobulk differential expression: one sample per (perturbation, stratum), tested with DESeq2."""

import logging
import warnings

import numpy as np
import pandas as pd

from scircuit._optional import optional
from scircuit._progress import progress
from scircuit.errors import ScircuitError
from scircuit.perturbation.screen import Screen
from scircuit.perturbation.statistics import sum_groups

log = logging.getLogger(__name__)

MIN_CELLS = 5
MAX_BYTES = 8e9


def deseq2(screen: Screen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log2 fold change, standard error and p by DESeq2, design `~ stratum + condition`; float64 `[label, gene]` each.

    Counts are summed per (perturbation, stratum); strata with fewer than five treated or control cells are left out.
    The negative-binomial model, its dispersion shrinkage and the Wald test are those of pydeseq2 (Love, Huber & Anders
    2014). NaN where DESeq2 gives none (genes without counts, perturbations with fewer than two strata).
    """
    if screen.scale != "counts":
        raise ScircuitError(
            f"pseudobulk needs counts but the matrix holds {screen.scale} values; point layer=... to the counts "
            "or use method='wilcoxon'."
        )
    optional("pydeseq2", "pseudobulk needs pydeseq2, which is not installed; run `pip install pydeseq2`.")
    sums, n_cells = _sums(screen)
    n_labels = len(screen.labels)
    result = np.full((3, n_labels, len(screen.genes)), np.nan)
    enough = (n_cells[:-1] >= MIN_CELLS) & (n_cells[-1] >= MIN_CELLS)
    replicated = np.flatnonzero(enough.sum(axis=1) >= 2)
    if not len(replicated):
        raise ScircuitError(
            f"no perturbation has {MIN_CELLS} treated and control cells in two strata; pseudobulk needs "
            "replicates: name them with batch=..., or use method='wilcoxon'."
        )
    if len(replicated) < n_labels:
        log.info("%d perturbations lie in one stratum only and get no test", n_labels - len(replicated))
    for row in progress(replicated, desc="DESeq2", unit="target"):
        strata = np.flatnonzero(enough[row])
        result[:, row] = _fit(sums[row, strata], sums[-1, strata])
    return result[0], result[1], result[2]


def _sums(screen: Screen) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[label + 1, stratum, gene]` and cells `[label + 1, stratum]`; the controls come last."""
    n_labels, n_strata, n_genes = len(screen.labels), len(screen.strata), len(screen.genes)
    n_groups = (n_labels + 1) * n_strata
    if (needed := 16.0 * n_groups * n_genes) > MAX_BYTES:
        raise ScircuitError(
            f"pseudobulk of {n_labels} perturbations in {n_strata} strata needs {needed / 1e9:.0f} GB; "
            "select perturbations or name a coarser batch=... column."
        )
    group = np.where(screen.label < 0, n_labels, screen.label) * n_strata + screen.stratum
    sums = sum_groups(screen, group, n_groups, raw=True)
    return sums.total.reshape(n_labels + 1, n_strata, n_genes), sums.n.reshape(n_labels + 1, n_strata)


def _fit(treated: np.ndarray, control: np.ndarray) -> np.ndarray:
    """(log2 fold change, standard error, p) `[3, gene]` from counts `[stratum, gene]` of both arms."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    n_strata, n_genes = treated.shape
    expressed = np.flatnonzero((treated + control).sum(axis=0) > 0)
    samples = [f"s{i}" for i in range(2 * n_strata)]
    counts = pd.DataFrame(
        np.rint(np.concatenate([treated, control])[:, expressed]).astype(np.int64),
        index=samples,
        columns=[f"g{i}" for i in expressed],
    )
    metadata = pd.DataFrame(
        {
            "stratum": [f"b{i}" for i in range(n_strata)] * 2,
            "condition": ["treated"] * n_strata + ["control"] * n_strata,
        },
        index=samples,
    )
    # pydeseq2 warns about its own inputs (few samples, dispersion trend); the numbers returned say the same.
    inference = DefaultInference(n_cpus=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = DeseqDataSet(
            counts=counts, metadata=metadata, design="~stratum + condition", quiet=True, inference=inference
        )
        data.deseq2()
        test = DeseqStats(
            data,
            contrast=["condition", "treated", "control"],
            independent_filter=False,
            inference=inference,
            quiet=True,
        )
        test.run_wald_test()
    out = np.full((3, n_genes), np.nan)
    out[0, expressed] = np.asarray(test.LFC.dot(test.contrast_vector)) / np.log(2)
    out[1, expressed] = np.asarray(test.SE) / np.log(2)
    out[2, expressed] = np.asarray(test.p_values)
    return out
