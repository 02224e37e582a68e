"""`TokenBatch`: what one forward pass of a model needs, and what sits at each position."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """What a position of the token sequence is."""

    PAD = 0
    GENE = 1
    CLS = 2
    EOS = 3
    AUX = 4


@dataclass(frozen=True)
class TokenBatch:
    """Cells as token sequences, padded on the right to the longest.

    Attributes
    ----------
    tokens : int64 `[cell, position]`
        Vocabulary id at each position; the model's pad id where there is nothing.
    role : int8 `[cell, position]`
        A `Role` for each position.
    gene : int32 `[cell, position]`
        Row of the model's gene table that sits at the position, -1 where the role is not `GENE`.
    cell : int64 `[cell]`
        Row of the AnnData that each sequence came from.
    values : float32 `[cell, position]` or None
        Expression bins for models that read values beside tokens (scGPT); None otherwise.
    """

    tokens: np.ndarray
    role: np.ndarray
    gene: np.ndarray
    cell: np.ndarray
    values: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.tokens.shape
        for name in ("role", "gene", "values"):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, tokens have {shape}")
        if self.cell.shape != shape[:1]:
            raise ValueError(f"cell has shape {self.cell.shape}, expected {shape[:1]}")

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def lengths(self) -> np.ndarray:
        """Number of positions that are not padding, int64 `[cell]`."""
        return (self.role != Role.PAD).sum(axis=1)

    @property
    def is_gene(self) -> np.ndarray:
        """Positions that hold a gene, bool `[cell, position]`; features are read at these only."""
        return self.role == Role.GENE

    def take(self, rows: np.ndarray, *, trim: bool = True) -> "TokenBatch":
        """The sequences `rows` (repeats allowed), cut to the longest of them when `trim`."""
        rows = np.asarray(rows)
        width = int(self.lengths[rows].max(initial=1)) if trim else self.tokens.shape[1]
        return TokenBatch(
            tokens=self.tokens[rows, :width],
            role=self.role[rows, :width],
            gene=self.gene[rows, :width],
            cell=self.cell[rows],
            values=None if self.values is None else self.values[rows, :width],
        )
