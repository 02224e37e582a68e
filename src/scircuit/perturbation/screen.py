"""`Screen`: the cells of a CRISPR screen, read in chunks so that a file larger than memory is never loaded.

`scircuit.perturbation.opening.open_screen` makes one; it hands out chunks of cells or blocks of genes.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit._io import sha256_of
from scircuit.errors import ScircuitError
from scircuit.perturbation import conventions

log = logging.getLogger(__name__)

TARGET_SUM = 1e4
CHUNK_CELLS = 4096


@dataclass(frozen=True)
class Screen:
    """Cells of a screen: one perturbation each, or none (controls)."""

    matrix: Any
    genes: pd.Index
    """Index `[gene]`: gene symbols, unique."""
    labels: pd.DataFrame
    """One row per perturbation: `label` (as in the file), `gene` (the gene it targets)."""
    cells: np.ndarray
    """int64 `[cell]`: rows of the matrix, ascending."""
    label: np.ndarray
    """int32 `[cell]`: row of `labels`; -1 for control cells."""
    stratum: np.ndarray
    """int32 `[cell]`: code of the (line, batch) of each cell; controls are matched within strata."""
    strata: list[str]
    """Names of the strata."""
    line: str
    """The cell line, `"all"` when lines were pooled on purpose, `""` when the file names none."""
    scale: str
    """`counts`, `normalised` or `log1p` (natural logarithm of 1 + normalised)."""
    fingerprint: str
    """Identity of file, layer and columns; with the kept cells it names cached results."""

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def n_controls(self) -> int:
        """Number of control cells."""
        return int((self.label < 0).sum())

    def targets(self) -> pd.DataFrame:
        """One row per perturbation: `label, gene, n_cells, n_strata, measured` (its gene is a column of X)."""
        n = len(self.labels)
        treated = self.label >= 0
        pairs = np.unique(np.stack([self.label[treated], self.stratum[treated]]), axis=1)
        return self.labels.assign(
            n_cells=np.bincount(self.label[treated], minlength=n),
            n_strata=np.bincount(pairs[0], minlength=n),
            measured=self.labels["gene"].isin(self.genes),
        )

    def select(self, labels: Sequence[str] | None = None, min_cells: int = 1) -> "Screen":
        """The named perturbations with at least `min_cells` cells, and all controls; refused where none is left."""
        wanted = np.ones(len(self.labels), dtype=bool)
        if labels is not None:
            unknown = sorted(set(labels) - set(self.labels["label"]))
            if unknown:
                raise ScircuitError(
                    f"the screen has no perturbation {unknown[0]!r}; choose from screen.targets()['label']."
                )
            wanted = self.labels["label"].isin(labels).to_numpy()
        counts = np.bincount(self.label[self.label >= 0], minlength=len(self.labels))
        keep = wanted & (counts >= min_cells)
        if not keep.any():
            most = int(counts[wanted].max(initial=0))
            raise ScircuitError(
                f"no perturbation has {min_cells} cells (the largest has {most}); effects need several cells "
                "per target: lower min_cells or use a deeper screen."
            )
        if dropped := int((wanted & ~keep).sum()):
            log.info("%d perturbations with fewer than %d cells are left out", dropped, min_cells)
        renumber = np.where(keep, np.cumsum(keep) - 1, -2)
        label = np.where(self.label < 0, -1, renumber[self.label])
        kept = label >= -1
        return replace(
            self,
            labels=self.labels[keep].reset_index(drop=True),
            cells=self.cells[kept],
            label=label[kept].astype(np.int32),
            stratum=self.stratum[kept],
        )

    def key(self) -> str:
        """Hash of the data, the kept cells and their grouping."""
        labels = [*self.labels["label"], *self.labels["gene"]]
        return sha256_of(self.fingerprint, self.scale, labels, self.cells, self.label, self.stratum)

    def chunks(self, raw: bool = False, size: int = CHUNK_CELLS) -> Iterator[tuple[slice, Any]]:
        """Yield (slice into `cells`, values `[cell, gene]`, dense or CSR), at most `size` rows of the file at once.

        Values are counts per ten thousand (normalised values as they are, log1p undone) unless `raw`.
        """
        n_rows = self.matrix.shape[0]
        for start in range(0, n_rows, size):
            first, last = np.searchsorted(self.cells, [start, start + size])
            if first == last:
                continue
            rows = self.matrix[start : min(start + size, n_rows)]
            values = rows[self.cells[first:last] - start]
            values = sparse.csr_array(values) if sparse.issparse(values) else np.asarray(values)
            conventions.refuse_negative(np.asarray(values.data if sparse.issparse(values) else values))
            yield slice(first, last), values if raw else self._linear(values)

    def gene_blocks(self, memory: float = 2e9) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (slice into `genes`, float32 `[gene, cell]`): all cells of as many genes as fit `memory` bytes.

        Each block is one pass over the file.
        """
        width = int(max(1, min(len(self.genes), memory // (4 * max(len(self), 1)))))
        for start in range(0, len(self.genes), width):
            genes = slice(start, min(start + width, len(self.genes)))
            block = np.empty((genes.stop - genes.start, len(self)), dtype=np.float32)
            for cells, values in self.chunks():
                block[:, cells] = dense(values[:, genes]).T
            yield genes, block

    def _linear(self, values: Any) -> Any:
        values = values.astype(np.float32)
        if self.scale == "log1p":
            return values.expm1() if sparse.issparse(values) else np.expm1(values)
        if self.scale == "normalised":
            return values
        total = np.asarray(values.sum(axis=1)).ravel()
        factor = (TARGET_SUM / np.maximum(total, 1.0)).astype(np.float32)
        if sparse.issparse(values):
            return sparse.diags_array(factor).dot(values).tocsr().astype(np.float32)
        return values * factor[:, None]


def dense(values: Any) -> np.ndarray:
    """Dense or CSR values as a dense array."""
    return values.toarray() if sparse.issparse(values) else values
