"""`Opened`: cells of a file that has not AnnData's layout, under AnnData's names; matrices that are read by rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse


class Tables:
    """What follows from a table of cells and one of genes."""

    obs: Any
    var: Any

    @property
    def obs_names(self) -> pd.Index:
        """Names of the cells."""
        return self.obs.index

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.obs)

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return len(self.var)


@dataclass(frozen=True)
class Opened(Tables):
    """The tables, read, and the matrices, unread."""

    filename: Path
    obs: pd.DataFrame
    var: pd.DataFrame
    X: Any
    layers: Mapping[str, Any] = field(default_factory=dict)
    uns: Mapping[str, Any] = field(default_factory=dict)
    raw: None = None


@dataclass(frozen=True)
class CompressedCells:
    """A compressed sparse matrix on disk whose pointers run over the cells."""

    group: Any
    """Holds `data`, `indices` and `indptr`."""
    shape: tuple[int, int]
    indptr: np.ndarray

    def __getitem__(self, rows: Any) -> sparse.csr_matrix:
        """Some cells; ascending rows are read in the order in which they lie."""
        rows = np.arange(self.shape[0])[rows]
        cut = np.flatnonzero(np.diff(rows) != 1) + 1
        spans = [slice(self.indptr[run[0]], self.indptr[run[-1] + 1]) for run in np.split(rows, cut) if len(run)]
        data, indices = ([self.group[name][span] for span in spans] for name in ("data", "indices"))
        indptr = np.concatenate([[0], np.cumsum(self.indptr[rows + 1] - self.indptr[rows])])
        arrays = (np.concatenate(data or [[]]), np.concatenate(indices or [[]]), indptr)
        return sparse.csr_matrix(arrays, shape=(len(rows), self.shape[1]))


@dataclass(frozen=True)
class DenseGenes:
    """A dense matrix on disk, genes by cells, in chunks."""

    dataset: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.dataset.shape[1], self.dataset.shape[0]

    def __getitem__(self, rows: Any) -> sparse.csr_matrix:
        """Some cells, chunk by chunk: one cell costs as much as all that share its chunks."""
        rows = np.arange(self.shape[0])[rows]
        width = (self.dataset.chunks or (0, 64))[1]
        parts = []
        for run in np.split(rows, np.flatnonzero(np.diff(rows // width)) + 1):
            if len(run):
                parts.append(sparse.csr_matrix(self.dataset[:, run.min() : run.max() + 1].T[run - run.min()]))
        return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, self.shape[1]))
