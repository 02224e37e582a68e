"""Screens simulated from known gene -> gene effects."""

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

GENES = 60
TARGETS = 12


def planted_effects(rng: np.random.Generator, n_targets: int = TARGETS, n_genes: int = GENES, share: float = 0.25):
    """log2 fold changes [target, gene]: each knock-down moves a quarter of the genes, up as often as down.

    A rise gains as many counts as a fall loses, and the last gene, most of the counts, never moves: relative
    abundance of the genes that stay hardly shifts.
    """
    size = rng.choice([-1.5, 0.72], size=(n_targets, n_genes)) * (rng.random((n_targets, n_genes)) < share)
    size[:, -1] = 0.0
    size[np.arange(n_targets), np.arange(n_targets)] = -3.0
    return size


def screen_from(
    effects: np.ndarray,
    rng: np.random.Generator,
    n_cells: int = 60,
    n_controls: int = 400,
    n_batches: int = 2,
    depth: float = 1500.0,
) -> ad.AnnData:
    """Poisson counts; batches differ in depth and in the level of some genes."""
    n_targets, n_genes = effects.shape
    base = np.exp(rng.normal(0, 0.7, n_genes))
    base[-1] = 2 * base[:-1].sum()
    base *= 3 * depth / base.sum()
    batch_effect = np.exp(rng.normal(0, 0.3, (n_batches, n_genes)))
    label = np.r_[np.repeat(np.arange(n_targets), n_cells), np.full(n_controls, -1)]
    batch = rng.integers(n_batches, size=len(label))
    fold = np.where((label >= 0)[:, None], 2.0 ** effects[label], 1.0)
    counts = rng.poisson(base * batch_effect[batch] * fold).astype(np.float32)
    names = np.array([f"G{i}" for i in range(n_genes)])
    obs = pd.DataFrame(
        {
            "perturbation": np.where(label < 0, "control", names[label]),
            "batch": [f"b{b}" for b in batch],
        },
        index=[f"c{i}" for i in range(len(label))],
    )
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names))
