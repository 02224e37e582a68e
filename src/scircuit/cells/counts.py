"""Raw counts out of any AnnData, block by block, checked, the caller's object untouched."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.cells import values
from scircuit.cells.by_rows import by_rows, is_by_columns
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 26
"""Size of a block as a dense float64 matrix up to which cells are read at once."""
_SCALES = ("counts", "log1p")
_KINDS = ("whole", "estimated")


@dataclass(frozen=True)
class CountSource:
    """Where the counts of an AnnData lie, and what they are."""

    adata: Any
    """In memory, backed, or what `files.open_cells` opened; only read, and from a file only by blocks of rows."""
    counts: str = "X"
    """`X`, `raw`, or `layer:NAME`."""
    scale: str = "counts"
    """`counts`, or `log1p` for values that were normalised per cell and log1p-transformed (checked): `expm1` and
    division by the cell's smallest value recover the relative counts, which are all that ranks and per-cell bins
    read."""
    counts_kind: str = "whole"
    """`whole` for raw counts (checked: finite, non-negative, whole numbers but for floating-point noise), or
    `estimated` for counts corrected for ambient RNA (SoupX, CellBender, DecontX), estimated (RSEM, kallisto) or
    normalised without a logarithm: taken as they are."""

    def __post_init__(self) -> None:
        for name, value, allowed in (("scale", self.scale, _SCALES), ("counts_kind", self.counts_kind, _KINDS)):
            if value not in allowed:
                raise ScircuitError(f"{name}={value!r} is unknown; it may be {allowed[0]!r} or {allowed[1]!r}.")
        if self.scale == "log1p" and self.counts_kind == "estimated":
            raise ScircuitError("counts_kind='estimated' and scale='log1p' exclude each other; keep what the data are.")
        if self.adata.n_obs == 0:
            raise ScircuitError("The file holds no cells; name one that does.")
        if self.counts not in self.choices():
            raise ScircuitError(
                f"counts={self.counts!r} is not in the data; it may be one of: {', '.join(self.choices())}."
            )
        if _matrix_of(self.adata, self.counts) is None:
            raise ScircuitError(
                f"The AnnData has no values in {self.counts}; its matrices may be in {', '.join(self.choices())}."
            )

    def choices(self) -> list[str]:
        """Every place of this AnnData that may hold counts."""
        names = ["X"] + (["raw"] if self.adata.raw is not None else [])
        return names + [f"layer:{name}" for name in self.adata.layers]

    @property
    def var(self) -> pd.DataFrame:
        """The gene table that belongs to the matrix (`raw` has its own)."""
        return self.adata.raw.var if self.counts == "raw" else self.adata.var

    @cached_property
    def matrix(self) -> Any:
        """The matrix, in memory or sliced by rows from the file; columns on disk are put into rows first, once."""
        return by_rows(_matrix_of(self.adata, self.counts), self.counts)

    def blocks(self, rows: np.ndarray, size: int = 512) -> Iterator[tuple[np.ndarray, sparse.csr_matrix]]:
        """Yield `(rows, counts)`: counts is float64 CSR `[cell, var]` of at most `size` cells.

        Blocks of many genes hold fewer cells, so that a block takes at most 64 MB even where the file is dense.
        From a file, rows that ascend are read in the order in which they lie there.

        Raises
        ------
        ScircuitError
            At the first NaN, negative or (of whole counts) non-integer value; when the first block shows that the
            values are not what `scale` and `counts_kind` say: 0/1, rounded CPM, a logarithm or none.
        """
        matrix = self.matrix
        noise = 0.0
        size = max(1, min(size, _BLOCK_BYTES // (8 * max(matrix.shape[1], 1))))
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            # Backed matrices read contiguous or sorted rows; asking sorted keeps one code path for all.
            order = np.argsort(chosen, kind="stable")
            cells = sparse.csr_matrix(matrix[chosen[order]], dtype=np.float64)
            inverse = np.empty_like(order)
            inverse[order] = np.arange(len(order))
            block = cells[inverse]
            block.sum_duplicates()
            if self.scale == "counts" and self.counts_kind == "whole":
                noise = max(noise, _without_noise(block))
            block.eliminate_zeros()
            self._check(block, chosen)
            if start == 0:
                self._judge(block)
            if self.scale == "log1p":
                block = _relative_counts(block)
            yield chosen, block
        if noise:
            log.info("%s holds whole numbers but for noise of up to %.1g; they are rounded", self.counts, noise)

    def _check(self, block: sparse.csr_matrix, rows: np.ndarray) -> None:
        """Refuse values that no reading of the matrix allows."""
        data = block.data
        for what, bad in (("NaN or infinite", ~np.isfinite(data)), ("negative", data < 0)):
            if bad.any():
                where = self._name_of(block, rows, int(np.argmax(bad)))
                fix = "centred or scaled values cannot be tokenised" if what == "negative" else "mend the file"
                other = self._elsewhere()
                raise ScircuitError(
                    f"{self.counts} holds {what} values ({where}); {fix}: {other or 'pass raw counts'}."
                )
        if self.scale == "log1p" and (data > values.MOST_LOG).any():
            where = self._name_of(block, rows, int(np.argmax(data)))
            raise ScircuitError(
                f"{self.counts} is no log1p: it holds {where}, and the logarithm of no count is so large; "
                f"{self._elsewhere() or 'leave scale out'}."
            )
        fraction = data != np.floor(data)
        if self.scale == "counts" and self.counts_kind == "whole" and fraction.any():
            where = self._name_of(block, rows, int(np.argmax(fraction)))
            raise ScircuitError(
                f"{self.counts} holds non-integer values ({where}), but raw counts are needed: {self._advice(block)}."
            )

    def _judge(self, block: sparse.csr_matrix) -> None:
        """Refuse a matrix whose values, as a whole, are something else than what they are said to be."""
        if values.is_binary(block):
            raise ScircuitError(
                f"{self.counts} holds only 0 and 1: which genes were seen, not how often; "
                f"{self._elsewhere() or 'pass raw counts'}."
            )
        found = values.logarithm(block)
        if self.scale == "log1p" and found != "log1p":
            raise ScircuitError(
                f"{self.counts} does not look like log1p of normalised counts (with the logarithm undone, no cells sum "
                "to one total, nor are values multiples of one count), and undoing a logarithm that is none changes "
                f"the order of genes; {self._elsewhere() or _unlogged(found)}."
            )
        if self.scale == "counts" and found is not None:
            raise ScircuitError(f"{self.counts} is no count: {_unlogged(found)}.")
        if self.counts_kind == "whole" and self.scale == "counts" and values.is_rounded_rate(block):
            raise ScircuitError(
                f"{self.counts} looks like rounded CPM or TPM: cells sum to about "
                f"{np.median(np.asarray(block.sum(axis=1))):,.0f}, and no gene has a count of 1; pass raw counts, or "
                "counts_kind='estimated', which takes ranks and bins from the values as they are."
            )

    def _name_of(self, block: sparse.csr_matrix, rows: np.ndarray, entry: int) -> str:
        cell = int(np.searchsorted(block.indptr, entry, side="right")) - 1
        gene = self.var.index[block.indices[entry]]
        return f"{block.data[entry]:.4g} at cell {self.adata.obs_names[rows[cell]]!r}, gene {gene!r}"

    def _elsewhere(self) -> str:
        """Another place of this AnnData that holds counts, or their log1p, as advice; empty without one."""
        others = [name for name in self.choices() if name != self.counts]
        heads = {name: _head(self.adata, name) for name in others}
        for name, head in heads.items():
            if values.is_whole(head) and not values.is_binary(head):
                return f"pass counts={name!r}, which holds whole numbers"
        for name, head in heads.items():
            if values.logarithm(head) == "log1p":
                return f"pass counts={name!r} and scale='log1p', which it looks like"
        return ""

    def _advice(self, block: sparse.csr_matrix) -> str:
        if other := self._elsewhere():
            return other
        if found := values.logarithm(block):
            return f"no other place of this AnnData holds whole numbers, and {self.counts} {_unlogged(found)}"
        what = "are ambient-corrected or estimated counts (SoupX, CellBender, DecontX, RSEM, kallisto)"
        if values.one_total(block, 0.01):
            what = "were normalised to one total per cell, without a logarithm"
        return (
            f"no other place of this AnnData holds whole numbers; if the values {what}, pass counts_kind='estimated', "
            "which takes ranks and bins from them as they are"
        )


def _matrix_of(adata: Any, counts: str) -> Any:
    if counts == "X":
        try:
            return adata.X
        except KeyError:  # a file that was written without X
            return None
    return adata.raw.X if counts == "raw" else adata.layers[counts.removeprefix("layer:")]


def _head(adata: Any, counts: str) -> sparse.csr_matrix:
    """Some cells of a place, or some genes where it lies by columns on disk."""
    matrix = _matrix_of(adata, counts)
    if matrix is None:
        return sparse.csr_matrix((0, 0))
    head = matrix[:, :20] if is_by_columns(matrix) else matrix[:20]
    return sparse.csr_matrix(head, dtype=np.float64)


def _without_noise(block: sparse.csr_matrix) -> float:
    """Put values that are whole but for noise onto the whole number; the largest step taken."""
    finite = np.isfinite(block.data)
    noisy = np.zeros(len(finite), dtype=bool)
    noisy[finite] = values.near_whole(block.data[finite])
    near = np.round(block.data[noisy])
    steps = np.abs(block.data[noisy] - near)
    block.data[noisy] = near
    return float(steps.max(initial=0.0))


def _unlogged(found: str | None) -> str:
    """What to do with values that are the logarithm `found`."""
    if found == "log1p":
        return "looks normalised and log1p-transformed: pass scale='log1p'"
    if found is not None:
        base = found.removeprefix("log")
        return f"looks like {found} of 1 + normalised counts: undo it ({base}**X - 1) and pass counts_kind='estimated'"
    return "leave scale out, and pass counts_kind='estimated' if the values are estimates of counts"


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
