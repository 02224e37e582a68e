"""Whether a latent's genes hang together in a network more than genes of the same degree would."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit.features.queries import query_matrix
from scircuit.knowledge.genes import GeneNames
from scircuit.knowledge.networks import Network
from scircuit.stats.multiple import benjamini_hochberg

MIN_BIN = 100
ENOUGH_EXCEEDANCES = 10


class DegreeBins(NamedTuple):
    """Genes grouped by degree: `bin [gene]`, and the genes of each bin one after the other in `genes` from `start`."""

    bin: np.ndarray
    genes: np.ndarray
    start: np.ndarray
    size: np.ndarray


def network_support(
    features: pd.DataFrame,
    network: Network,
    background: pd.DataFrame,
    *,
    draws: int = 1_000,
    max_draws: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of `support.parquet`: the number of links inside each latent's top genes, tested.

    The null are gene sets of equal size whose genes have, one by one, a degree in the same bin: powers of two of the
    degree within the background, bins of fewer than 100 genes joined with the next lower one. p = (b + 1) / (m + 1)
    with b draws of at least as many links (Phipson & Smyth 2010); a latent with fewer than 10 such draws among the
    first `draws` is drawn up to `max_draws`. A latent without a link has p = 1. BH over every latent with at least two
    genes. Links are counted without direction. `features` has `layer, feature, top_genes`, `background` the `symbol,
    ensembl_id` of the genes tokenised in the run.
    """
    names = GeneNames(background.drop_duplicates("symbol", ignore_index=True))
    query = query_matrix(features, names)
    linked = network.adjacency(names)
    degree = np.asarray(linked.sum(axis=1)).ravel().astype(np.int64)
    bins = bin_degrees(degree)
    # Links are looked up a hundred million times: a dense table over the genes that have any.
    place = np.full(len(degree), -1)
    place[degree > 0] = np.arange((degree > 0).sum())
    table = linked[degree > 0][:, degree > 0].toarray()
    table = np.pad(table, ((0, 1), (0, 1)))  # place -1, a gene without links, reads the empty last row
    rng = np.random.default_rng(seed)
    rows = []
    tested = np.flatnonzero(np.diff(query.indptr) >= 2)
    for latent in progress(tested, desc=f"{network.name} support", unit="latent"):
        genes = query.indices[query.indptr[latent] : query.indptr[latent + 1]]
        observed = int(_count_links(genes[None], place, table)[0])
        if observed == 0:
            rows.append((latent, len(genes), 0, np.nan, 0, 1.0))
            continue
        null = _null_links(genes, bins, place, table, draws, rng)
        if (null >= observed).sum() < ENOUGH_EXCEEDANCES and max_draws > draws:
            null = np.concatenate([null, _null_links(genes, bins, place, table, max_draws - draws, rng)])
        p = ((null >= observed).sum() + 1) / (len(null) + 1)
        rows.append((latent, len(genes), observed, null.mean(), len(null), p))
    out = pd.DataFrame(rows, columns=["row", "n_genes", "n_links", "expected", "n_draws", "p_value"])
    latent = out.pop("row").to_numpy(dtype=np.int64)
    out.insert(0, "layer", features["layer"].to_numpy()[latent])
    out.insert(1, "feature", features["feature"].to_numpy()[latent])
    out.insert(2, "network", network.name)
    out.insert(6, "fold", out["n_links"] / out["expected"].where(out["expected"] > 0))
    return out.assign(q_value=benjamini_hochberg(out["p_value"].to_numpy(dtype=float)))


def bin_degrees(degree: np.ndarray) -> DegreeBins:
    """Genes of like degree: 0, 1, 2-3, 4-7, ...; bins of fewer than `MIN_BIN` genes join the next lower one."""
    group = np.where(degree > 0, np.floor(np.log2(np.maximum(degree, 1))).astype(np.int64) + 1, 0)
    sizes = np.bincount(group)
    target = np.arange(len(sizes))
    for i in range(len(sizes) - 1, 0, -1):
        if sizes[i] < MIN_BIN:
            sizes[i - 1] += sizes[i]
            target[target == i] = i - 1
    group = np.unique(target[group], return_inverse=True)[1]
    size = np.bincount(group)
    return DegreeBins(group, np.argsort(group, kind="stable"), np.r_[0, np.cumsum(size)[:-1]], size)


def draw_matched(genes: np.ndarray, bins: DegreeBins, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Gene sets `[draw, gene]`, each gene from the bin of the gene it replaces, no gene twice in a set.

    Genes that repeat within a set are drawn again until none does. The procedure treats the genes of a bin alike, so
    every selection of distinct genes is equally likely.
    """
    start, size = bins.start[bins.bin[genes]], bins.size[bins.bin[genes]]
    pick = start + (rng.random((draws, len(genes))) * size).astype(np.int64)
    todo = np.arange(draws)
    while len(todo):
        part = pick[todo]
        order = np.argsort(part, axis=1, kind="stable")
        sorted_part = np.take_along_axis(part, order, axis=1)
        again = np.zeros(part.shape, dtype=bool)
        np.put_along_axis(again, order[:, 1:], sorted_part[:, 1:] == sorted_part[:, :-1], axis=1)
        row, column = np.nonzero(again)
        pick[todo[row], column] = start[column] + (rng.random(len(row)) * size[column]).astype(np.int64)
        todo = todo[np.unique(row)]
    return bins.genes[pick]


def _null_links(
    genes: np.ndarray, bins: DegreeBins, place: np.ndarray, table: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    # A thousand sets at a time keep the pairs in the processor's cache.
    parts = [min(1000, draws - done) for done in range(0, draws, 1000)]
    return np.concatenate([_count_links(draw_matched(genes, bins, n, rng), place, table) for n in parts])


def _count_links(sets: np.ndarray, place: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Links inside each gene set `[set, gene]`."""
    at = place[sets]
    first, second = np.triu_indices(sets.shape[1], k=1)
    return table[at[:, first], at[:, second]].sum(axis=1)
