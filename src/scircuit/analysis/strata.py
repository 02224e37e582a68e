"""Strata of latents alike in layer, firing rate and number of gene sets: what a null may exchange."""

from typing import NamedTuple

import numpy as np
import pandas as pd


class Strata(NamedTuple):
    """Latents grouped so that any may stand for another.

    `code` is each node's stratum, -1 where it takes no part; the members of stratum g are
    `members[start[g] : start[g] + size[g]]`.
    """

    code: np.ndarray
    members: np.ndarray
    start: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, code: np.ndarray) -> "Strata":
        """Group nodes by an int code, -1 for none."""
        names, dense = np.unique(code, return_inverse=True)
        dense = dense - (len(names) > 0 and names[0] == -1)
        size = np.bincount(dense[dense >= 0])
        members = np.argsort(dense, kind="stable")[np.count_nonzero(dense < 0) :]
        return cls(dense, members, np.cumsum(size) - size, size)

    def draw(self, nodes: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Random members of the strata of `nodes` (trailing axis of `shape`), the node itself included."""
        stratum = self.code[nodes]
        offset = (rng.random(shape, dtype=np.float32) * self.size[stratum]).astype(np.int64)
        # float32 draws can round up to the stratum's size.
        return self.members[self.start[stratum] + np.minimum(offset, self.size[stratum] - 1)]


def rank_bins(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Quantile bin of each value, equal values in one bin, int64 `[value]`."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    ordered = np.sort(values)
    middle = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    return np.minimum((middle / len(values) * n_bins).astype(np.int64), n_bins - 1)


def node_strata(nodes: pd.DataFrame, n_terms: np.ndarray | None = None, n_bins: int = 10, min_size: int = 20) -> Strata:
    """Strata of (layer, firing-rate decile, number-of-terms decile) over the latents that ever fire.

    Where a layer is too small for `n_bins` of each with `min_size` latents in a stratum (a null that can only draw the
    latent itself tests nothing), the number of terms keeps its bins first: the chance of sharing a set grows with it
    directly. With `n_terms` `[node]`, latents without any take no part; None stratifies by layer and rate alone.
    """
    code = np.full(len(nodes), -1, dtype=np.int64)
    layer = nodes["layer"].to_numpy()
    live = (nodes["n_firings"] > 0).to_numpy()
    if n_terms is not None:
        live = live & (n_terms > 0)
    frequency = nodes["frequency"].to_numpy(np.float64)
    for value in np.unique(layer):
        rows = np.flatnonzero(live & (layer == value))
        room = max(int(len(rows) / min_size), 1)
        local = np.zeros(len(rows), dtype=np.int64)
        if n_terms is not None:
            local = rank_bins(n_terms[rows], min(room, n_bins))
            room //= max(len(np.unique(local)), 1)
        local = local * n_bins + rank_bins(frequency[rows], int(np.clip(room, 1, n_bins)))
        code[rows] = (int(value) * n_bins * n_bins) + local
    return Strata.of(code)
