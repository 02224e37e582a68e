"""Counts that lie on disk in any order, put into rows (cells) once: in memory where small, by way of the disk else.

A cell of a file that is stored by columns (CSC), or of a Matrix Market text, cannot be read without reading all. The
entries are read once; those of neighbouring cells are gathered in one file each, and these are sorted one by one.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from scircuit._io import atomic, cache_folder, sha256_of
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)

IN_MEMORY = 1 << 24
"""Entries up to which everything is sorted in memory (some 500 MB); the size of a part otherwise."""
_ENTRY = np.dtype([("cell", "<i8"), ("gene", "<i4"), ("value", "<f4")])


class Entries(NamedTuple):
    """The entries of a matrix in any order: how many, of what shape `[cell, gene]`, and parts of them as they come."""

    shape: tuple[int, int]
    number: int
    parts: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]
    """`(cell, gene, value)`."""
    identity: str
    """Names the entries for good: what was rewritten once is found again by it."""


def is_by_columns(matrix: Any) -> bool:
    """Whether a matrix lies on disk by columns."""
    return getattr(matrix, "format", None) == "csc" and not sparse.issparse(matrix)


def by_rows(matrix: Any, name: str) -> Any:
    """The matrix itself, or by rows where it lies on disk by columns."""
    return in_rows(_columns(matrix), name) if is_by_columns(matrix) else matrix


def in_rows(entries: Entries, name: str) -> Any:
    """The entries as CSR: in memory, or as a file of the cache that is sliced by rows.

    Raises
    ------
    ScircuitError
        When there is no room for the file.
    """
    if entries.number <= IN_MEMORY:
        return _sorted(list(entries.parts), entries.shape)
    path = cache_folder() / "rows" / f"{entries.identity[:32]}.h5"
    if not path.is_file():
        log.info(
            "%s is not stored by cells; it is rewritten once into %s (%.1f GB, as much again while it is written)",
            name, path, 12 * entries.number / 1e9,
        )  # fmt: skip
        try:
            with atomic(path) as temporary:
                _rewrite(entries, temporary)
        except OSError as error:
            raise ScircuitError(
                f"{path} cannot be written ({error}); make room, or set SCIRCUIT_CACHE to a folder with room."
            ) from None
    import h5py
    from anndata.io import sparse_dataset

    return sparse_dataset(h5py.File(path, "r")["X"])


def _columns(matrix: Any) -> Entries:
    """The entries of a CSC matrix on disk, some columns at a time."""
    group = matrix.group
    indptr = np.asarray(group["indptr"][:], dtype=np.int64)
    place = getattr(getattr(group, "file", None), "filename", None) or str(group.store).removeprefix("file://")
    when = Path(place).stat().st_mtime_ns if Path(place).exists() else 0

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        start, step = 0, IN_MEMORY // 4
        while start < len(indptr) - 1:
            stop = max(start + 1, int(np.searchsorted(indptr, indptr[start] + step, side="right")) - 1)
            span = slice(int(indptr[start]), int(indptr[stop]))
            gene = np.repeat(np.arange(start, stop), np.diff(indptr[start : stop + 1]))
            yield np.asarray(group["indices"][span]), gene, np.asarray(group["data"][span])
            start = stop

    identity = sha256_of(place, group.name, when, indptr)
    return Entries(tuple(matrix.shape), int(indptr[-1]), parts(), identity)


def _sorted(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], shape: tuple[int, int]) -> sparse.csr_matrix:
    if not parts:
        return sparse.csr_matrix(shape)
    cell, gene, value = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return sparse.csr_matrix((value, (cell, gene)), shape=shape)


def _rewrite(entries: Entries, path: Path) -> None:
    """Gather the entries of neighbouring cells on disk, then sort each gathering and append it."""
    import h5py
    from anndata.io import sparse_dataset, write_elem

    n_cells, n_genes = entries.shape
    n_bands = -(-entries.number // IN_MEMORY)
    width = max(1, -(-n_cells // n_bands))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, h5py.File(path, "w") as file:
        for cell, gene, value in entries.parts:
            part = np.empty(len(cell), dtype=_ENTRY)
            part["cell"], part["gene"], part["value"] = cell, gene, value
            part = part[np.argsort(part["cell"] // width, kind="stable")]
            bounds = np.searchsorted(part["cell"] // width, np.arange(n_bands + 1))
            for band in range(n_bands):
                with open(Path(folder) / str(band), "ab") as out:
                    part[bounds[band] : bounds[band + 1]].tofile(out)
        for band in range(n_bands):
            part = np.fromfile(Path(folder) / str(band), dtype=_ENTRY)
            size = max(0, min(width, n_cells - band * width))
            rows = _sorted([(part["cell"] - band * width, part["gene"], part["value"])], (size, n_genes))
            if band == 0:
                write_elem(file, "X", rows)
            else:
                sparse_dataset(file["X"]).append(rows)
