"""Enrichment over a latent's whole loading profile instead of its top genes, through decoupler."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from scircuit._optional import optional
from scircuit.errors import ScircuitError
from scircuit.features.enrichment import Enrichment, cut_to_background
from scircuit.knowledge.gmt import GeneSets
from scircuit.stats.multiple import benjamini_hochberg


def loading_profile(
    features: pd.DataFrame, genes: pd.DataFrame, background: pd.DataFrame
) -> tuple[sparse.csr_matrix, pd.Index]:
    """Mean activation of each latent over every position of each gene, firing or not.

    Sparse float64 `[latent, gene]` and the names of the genes, from the tables of a catalogue; positions of genes that
    share a symbol are added.
    """
    positions = background.groupby("symbol", sort=False)["n_positions"].sum()
    column = positions.index.get_indexer(pd.Index(genes["gene"].astype(str)))
    row = pd.MultiIndex.from_frame(features[["layer", "feature"]]).get_indexer(
        pd.MultiIndex.from_frame(genes[["layer", "feature"]])
    )
    kept = (row >= 0) & (column >= 0)
    total = genes["n_firings"].to_numpy() * genes["mean_activation"].to_numpy(dtype=np.float64)
    matrix = sparse.csr_matrix(
        (total[kept], (row[kept], column[kept])), shape=(len(features), len(positions)), dtype=np.float64
    )
    return matrix.multiply(1 / positions.to_numpy(dtype=np.float64)).tocsr(), positions.index


def import_decoupler() -> Any:
    """The package, or a refusal that says how to get it."""
    return optional(
        "decoupler",
        "Rank-based enrichment needs decoupler; install it with `pip install 'scircuit[bio]'`, or use enrich().",
    )


@contextmanager
def _same_threads() -> Iterator[None]:
    """Give PyTorch its number of threads back: decoupler's kernels (numba) set that of the whole process.

    On another number of threads a run would give other last bits, and take many times as long where cores are shared.
    """
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_same_threads()
def rank_enrich(
    features: pd.DataFrame,
    genes: pd.DataFrame,
    libraries: GeneSets | Sequence[GeneSets],
    background: pd.DataFrame,
    *,
    alpha: float = 0.05,
    min_size: int = 3,
    latents_per_block: int = 512,
) -> Enrichment:
    """Test whether a set's genes rank high in a latent's loading profile, by latent and then `statistic` (t).

    The profile (`loading_profile`) is turned into ranks within the latent, ties in the middle, and decoupler's
    univariate linear model (`ulm`; Badia-i-Mompel et al., Bioinformatics Advances 2022) regresses the ranks on
    membership: t of the slope with (genes - 2) degrees of freedom. p is one-sided (high ranks); BH over every pair of a
    live latent and a set of at least `min_size` genes in the background.

    `features`, `genes` and `background` are tables of one catalogue; `latents_per_block` are made dense at a time.
    """
    decoupler = import_decoupler()
    sets = cut_to_background(libraries, background)
    chosen = np.flatnonzero(sets.size >= min_size)
    if len(chosen) == 0:
        raise ScircuitError(f"No set has {min_size} genes in the background; lower min_size.")
    live = features[features["n_firings"] > 0]
    profile, symbols = loading_profile(live, genes, background)
    member = sets.member[:, chosen].tocoo()
    # decoupler orders its sets by name; numbers of fixed width keep ours.
    name = np.array([f"{i:09d}" for i in range(len(chosen))])
    net = pd.DataFrame({"source": name[member.col], "target": sets.names.genes["symbol"].to_numpy()[member.row]})
    degrees = profile.shape[1] - 2
    parts = []
    for start in range(0, len(live), latents_per_block):
        ranks = stats.rankdata(profile[start : start + latents_per_block].toarray(), axis=1)
        table = pd.DataFrame(ranks, columns=symbols, index=[str(i) for i in range(len(ranks))])
        score, _ = decoupler.mt.ulm(table, net.assign(weight=1.0), tmin=min_size, empty=False)
        t = score[name].to_numpy()
        p = stats.t.sf(t, degrees)
        row, column = np.nonzero(p <= alpha)
        parts.append((row + start, column, t[row, column], p[row, column]))
    row, column, t, p = (np.concatenate(part) for part in zip(*parts, strict=True))
    n_tests = len(live) * len(chosen)
    q = benjamini_hochberg(p, n_tests)
    called = q <= alpha
    row, column, t, p, q = row[called], chosen[column[called]], t[called], p[called], q[called]
    terms = pd.DataFrame(
        {
            "layer": live["layer"].to_numpy()[row],
            "feature": live["feature"].to_numpy()[row],
            "library": sets.library[column],
            "term": sets.term[column],
            "set_size": sets.size[column],
            "statistic": t,
            "p_value": p,
            "q_value": q,
            "information_content": -np.log2(sets.size[column] / sets.n_background),
        }
    ).sort_values(
        ["layer", "feature", "statistic", "library", "term"],
        ascending=[True, True, False, True, True],
        ignore_index=True,
    )
    meta = {
        "method": "decoupler ulm on ranks",
        "decoupler": str(decoupler.__version__),
        "n_tests": n_tests,
        "n_queries": len(live),
        "n_sets": len(chosen),
        "n_background": sets.n_background,
        "alpha": alpha,
        "libraries": sets.report,
    }
    return Enrichment(terms, meta)
