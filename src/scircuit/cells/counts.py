"""Raw counts out of any AnnData, block by block, checked, the caller's object untouched."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.errors import ScircuitError

_BLOCK_BYTES = 1 << 26
"""Size of a block as a dense float64 matrix up to which cells are read at once."""


@dataclass(frozen=True)
class CountSource:
    """Where the counts of an AnnData lie."""

    adata: Any
    """In memory, backed, or a `files.CellFile`; only read, and from a file only by blocks of rows."""
    counts: str = "X"
    """`X`, `raw`, or `layer:NAME`."""
    scale: str = "counts"
    """`counts` for raw counts (checked: finite, non-negative, whole numbers), or `log1p` for values that were
    normalised per cell and log1p-transformed: `expm1` and division by the cell's smallest value recover the relative
    counts, which are all that ranks and per-cell bins read."""

    def __post_init__(self) -> None:
        if self.scale not in ("counts", "log1p"):
            raise ScircuitError(f"scale={self.scale!r} is unknown; it may be 'counts' or 'log1p'.")
        if self.counts not in self.choices():
            raise ScircuitError(
                f"counts={self.counts!r} is not in the data; it may be one of: {', '.join(self.choices())}."
            )
        matrix = self.matrix
        if matrix is None:
            raise ScircuitError(
                f"The AnnData has no values in {self.counts}; its matrices may be in {', '.join(self.choices())}."
            )
        if _is_columns_on_disk(matrix):
            raise ScircuitError(
                f"{self.counts} is stored on disk by columns (CSC), of which no cell can be read without reading all; "
                "rewrite it by rows: load it once where memory allows, set X = X.tocsr(), and write_h5ad."
            )

    def choices(self) -> list[str]:
        """Every place of this AnnData that may hold counts."""
        names = ["X"] + (["raw"] if self.adata.raw is not None else [])
        return names + [f"layer:{name}" for name in self.adata.layers]

    @property
    def var(self) -> pd.DataFrame:
        """The gene table that belongs to the matrix (`raw` has its own)."""
        return self.adata.raw.var if self.counts == "raw" else self.adata.var

    @property
    def matrix(self) -> Any:
        """The matrix, in memory or sliced by rows from the file."""
        return _matrix_of(self.adata, self.counts)

    def blocks(self, rows: np.ndarray, size: int = 512) -> Iterator[tuple[np.ndarray, sparse.csr_matrix]]:
        """Yield `(rows, counts)`: counts is float64 CSR `[cell, var]` of at most `size` cells.

        Blocks of many genes hold fewer cells, so that a block takes at most 64 MB even where the file is dense.
        From a file, rows that ascend are read in the order in which they lie there.

        Raises
        ------
        ScircuitError
            At the first NaN, negative or (for `scale="counts"`) non-integer value.
        """
        matrix = self.matrix
        size = max(1, min(size, _BLOCK_BYTES // (8 * max(matrix.shape[1], 1))))
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            # Backed matrices read contiguous or sorted rows; asking sorted keeps one code path for all.
            order = np.argsort(chosen, kind="stable")
            values = sparse.csr_matrix(matrix[chosen[order]], dtype=np.float64)
            inverse = np.empty_like(order)
            inverse[order] = np.arange(len(order))
            block = values[inverse]
            block.sum_duplicates()
            block.eliminate_zeros()
            self._check(block, chosen)
            if self.scale == "log1p":
                block = _relative_counts(block)
            yield chosen, block

    def _check(self, block: sparse.csr_matrix, rows: np.ndarray) -> None:
        data = block.data
        for what, bad in (("NaN or infinite", ~np.isfinite(data)), ("negative", data < 0)):
            if bad.any():
                where = self._name_of(block, rows, int(np.argmax(bad)))
                fix = "centred or scaled values cannot be tokenised" if what == "negative" else "mend the file"
                raise ScircuitError(f"{self.counts} holds {what} values ({where}); {fix}: pass raw counts.")
        fraction = data != np.floor(data)
        if self.scale == "counts" and fraction.any():
            where = self._name_of(block, rows, int(np.argmax(fraction)))
            raise ScircuitError(
                f"{self.counts} holds non-integer values ({where}), so it looks normalised, but raw counts are "
                f"needed: {self._advice()}."
            )

    def _name_of(self, block: sparse.csr_matrix, rows: np.ndarray, entry: int) -> str:
        cell = int(np.searchsorted(block.indptr, entry, side="right")) - 1
        gene = self.var.index[block.indices[entry]]
        return f"{block.data[entry]:.4g} at cell {self.adata.obs_names[rows[cell]]!r}, gene {gene!r}"

    def _advice(self) -> str:
        others = [name for name in self.choices() if name != self.counts]
        whole = [name for name in others if _looks_like_counts(_matrix_of(self.adata, name))]
        if whole:
            return f"pass counts={whole[0]!r}, which holds whole numbers"
        return "no other place of this AnnData holds whole numbers; if the values are log1p, pass scale='log1p'"


def _matrix_of(adata: Any, counts: str) -> Any:
    if counts == "X":
        try:
            return adata.X
        except KeyError:  # a file that was written without X
            return None
    return adata.raw.X if counts == "raw" else adata.layers[counts.removeprefix("layer:")]


def _looks_like_counts(matrix: Any) -> bool:
    if matrix is None or _is_columns_on_disk(matrix):
        return False
    head = sparse.csr_matrix(matrix[:20], dtype=np.float64).data
    return len(head) > 0 and bool((np.isfinite(head) & (head >= 0) & (head == np.floor(head))).all())


def _is_columns_on_disk(matrix: Any) -> bool:
    return getattr(matrix, "format", None) == "csc" and not sparse.issparse(matrix)


def _relative_counts(block: sparse.csr_matrix) -> sparse.csr_matrix:
    block = block.copy()
    block.data = np.expm1(block.data)
    for start, stop in zip(block.indptr[:-1], block.indptr[1:], strict=True):
        cell = block.data[start:stop]
        if len(cell):
            cell /= cell.min()
    # Equal counts come back equal only up to float32 rounding of the log; ranks must see them as ties.
    block.data = np.round(block.data, 3)
    return block
