"""scGPT's encoding: a cell is its expressed genes, each with the quantile bin of its value in that cell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scircuit._io import sha256_of
from scircuit.cells.batch import Role
from scircuit.cells.rank_value import CellTokens
from scircuit.cells.vocabulary import Vocabulary
from scircuit.errors import ScircuitError


def quantile_bins(x: np.ndarray, n_bins: int, rng: np.random.Generator | None) -> np.ndarray:
    """Bins 1 .. n_bins - 1 of positive values by the quantiles of the cell (0 is kept for zero).

    A value equal to several edges belongs to several bins: a random one of them with `rng` (as upstream,
    where ones of a raw-count cell spread over some 25 bins), their midpoint without.
    Formula: scGPT `preprocess.binning` (Cui et al., Nature Methods 2024).
    """
    edges = np.quantile(x, np.linspace(0, 1, n_bins - 1))
    high = np.digitize(x, edges)
    low = np.digitize(x, edges, right=True)
    share = 0.5 if rng is None else rng.random(len(x))
    return np.maximum(np.ceil(share * (low - high) + high), 1).astype(np.float32)


@dataclass(frozen=True)
class BinningTokenizer:
    """scGPT's input.

    `official`: `<cls>` first with the pad value, then the expressed genes in vocabulary order with their
    bins; a longer cell keeps a random subset. Random draws come from a generator seeded by (seed, cell name),
    so they do not depend on batches. `options["binning"]` is `sampled` (default) or `midpoint`
    (deterministic, not upstream's); `options["seed"]` an integer.

    `paper` (arXiv 2603.01752 as run): no `<cls>`, raw unbinned values, the `max_length` genes
    of largest value.
    """

    vocabulary: Vocabulary
    max_length: int = 1200
    n_bins: int = 51
    pad_value: float = -2.0
    protocol: str = "official"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol not in ("official", "paper"):
            raise ScircuitError(f"protocol={self.protocol!r} is unknown; it may be 'official' or 'paper'.")
        unknown = set(self.options) - {"binning", "seed"}
        if unknown:
            raise ScircuitError(f"Binning has no option {sorted(unknown)[0]!r}; allowed are 'binning', 'seed'.")
        if self._binning not in ("sampled", "midpoint"):
            raise ScircuitError(f"binning={self._binning!r} is unknown; it may be 'sampled' or 'midpoint'.")
        if not isinstance(self.options.get("seed", 0), int):
            raise ScircuitError(f"Binning's seed={self.options['seed']!r} is no whole number; give one, such as 0.")

    @property
    def _binning(self) -> str:
        return str(self.options.get("binning", "sampled"))

    @property
    def fingerprint(self) -> str:
        """sha256 of protocol, length and binning rules and vocabulary."""
        rules = {"binning": self._binning, "seed": int(self.options.get("seed", 0))}
        sizes = [self.max_length, self.n_bins, self.pad_value]
        return sha256_of("binning", self.protocol, rules, sizes, self.vocabulary.fingerprint)

    @property
    def pad(self) -> tuple[int, float | None]:
        """Token id and value of padding."""
        return self.vocabulary.special["<pad>"], self.pad_value

    def cell(self, gene: np.ndarray, counts: np.ndarray, total: float, name: str) -> CellTokens:
        """Encode one cell; arguments as in `RankValueTokenizer.cell`."""
        if self.protocol == "paper":
            kept = np.argsort(-counts, kind="stable")[: self.max_length]
            return self._sequence(gene[kept], counts[kept], cls=False)
        seed = int(sha256_of(int(self.options.get("seed", 0)), name)[:16], 16)
        rng = np.random.default_rng(seed)
        bins = quantile_bins(counts, self.n_bins, rng if self._binning == "sampled" else None)
        room = self.max_length - 1
        if len(gene) > room:
            kept = np.sort(rng.choice(len(gene), size=room, replace=False))
            gene, bins = gene[kept], bins[kept]
        return self._sequence(gene, bins, cls=True)

    def _sequence(self, gene: np.ndarray, values: np.ndarray, *, cls: bool) -> CellTokens:
        tokens = self.vocabulary.genes["token"].to_numpy()[gene]
        role = np.full(len(gene), Role.GENE, dtype=np.int8)
        if cls:
            tokens = np.concatenate([[self.vocabulary.special["<cls>"]], tokens])
            gene = np.concatenate([[-1], gene])
            role = np.concatenate([[Role.CLS], role])
            values = np.concatenate([[self.pad_value], values])
        return CellTokens(
            tokens.astype(np.int64), gene.astype(np.int32), role.astype(np.int8), values.astype(np.float32)
        )
