"""Geneformer's rank-value encoding: a cell is its genes in order of expression relative to their median."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from scircuit._io import sha256_of
from scircuit.cells.batch import Role
from scircuit.cells.vocabulary import Vocabulary
from scircuit.errors import ScircuitError


class CellTokens(NamedTuple):
    """One cell as a sequence: `tokens`, `gene`, `role` and (scGPT) `values`, each `[position]`."""

    tokens: np.ndarray
    gene: np.ndarray
    role: np.ndarray
    values: np.ndarray | None


@dataclass(frozen=True)
class RankValueTokenizer:
    """Rank-value encoding of raw counts.

    `official` (Theodoris et al., Nature 2023; TranscriptomeTokenizer): counts / median in float64, stable
    descending order, truncated to `max_length`, `<cls>` and `<eos>` where the series has them. The cell's
    total is a constant factor that cannot change a rank and is therefore not used.

    `paper` (arXiv 2603.01752 as run): log1p(counts / total * 1e4) / median, at most 2,048 tokens.
    """

    vocabulary: Vocabulary
    max_length: int
    protocol: str = "official"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol not in ("official", "paper"):
            raise ScircuitError(f"protocol={self.protocol!r} is unknown; it may be 'official' or 'paper'.")
        if self.options:
            raise ScircuitError(f"Rank-value encoding has no option {sorted(self.options)[0]!r}; remove it.")
        if self.vocabulary.medians is None:
            raise ScircuitError("Rank-value encoding needs gene medians; the vocabulary has none.")

    @property
    def fingerprint(self) -> str:
        """sha256 of protocol, length rule and vocabulary."""
        return sha256_of("rank-value", self.protocol, self._length, self.vocabulary.fingerprint)

    @property
    def pad(self) -> tuple[int, float | None]:
        """Token id and value of padding."""
        return self.vocabulary.special["<pad>"], None

    @property
    def _length(self) -> int:
        return min(self.max_length, 2048) if self.protocol == "paper" else self.max_length

    def cell(self, gene: np.ndarray, counts: np.ndarray, total: float, name: str) -> CellTokens:
        """Encode one cell: `gene` are the vocabulary rows with a non-zero count, ascending, `counts` theirs, `[gene]`.

        `total` is the sum of all counts, genes outside the vocabulary included. `name` is not used here: the encoding
        is deterministic.
        """
        assert self.vocabulary.medians is not None
        medians = self.vocabulary.medians[gene]
        score = counts / medians
        if self.protocol == "paper":
            score = np.log1p(counts / total * 1e4) / medians
        special = self.vocabulary.special
        bracket = "<cls>" in special and "<eos>" in special
        order = np.argsort(-score, kind="stable")[: self._length - (2 if bracket else 0)]
        ranked = gene[order]
        tokens = self.vocabulary.genes["token"].to_numpy()[ranked]
        role = np.full(len(ranked), Role.GENE, dtype=np.int8)
        if bracket:
            tokens = np.concatenate([[special["<cls>"]], tokens, [special["<eos>"]]])
            ranked = np.concatenate([[-1], ranked, [-1]])
            role = np.concatenate([[Role.CLS], role, [Role.EOS]])
        return CellTokens(tokens.astype(np.int64), ranked.astype(np.int32), role.astype(np.int8), None)
