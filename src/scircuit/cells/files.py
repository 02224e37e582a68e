"""`CellFile`: an .h5ad file of any size, of which tables are read whole and matrices by rows only."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from scircuit._io import sha256_of
from scircuit.errors import ScircuitError


class Raw(NamedTuple):
    """`raw` of a file: its own gene table and its matrix, unread."""

    var: pd.DataFrame
    X: Any


class CellFile:
    """What the package reads of an AnnData, straight from the file.

    AnnData's own backed mode leaves only X on disk: it loads every layer and every embedding of the file. Here
    nothing but `obs` and `var` is loaded; X, `raw.X` and the layers are handles that are sliced by rows.

    Raises
    ------
    ScircuitError
        When the file is missing, is no HDF5 file, or holds no obs or var.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py

        self.filename = Path(path)
        if not self.filename.is_file():
            raise ScircuitError(f"{path} does not exist; name an .h5ad file.")
        try:
            if not h5py.is_hdf5(self.filename):
                raise OSError("it is not an HDF5 file")
            self._file = h5py.File(self.filename, "r")
        except OSError as error:
            raise ScircuitError(
                f"{path} is not a readable .h5ad file ({error}); write it with AnnData.write_h5ad."
            ) from None
        for name in ("obs", "var"):
            if name not in self._file:
                raise ScircuitError(
                    f"{path} is not a readable .h5ad file (it has no {name}); write it with AnnData.write_h5ad."
                )

    def _table(self, place: str) -> pd.DataFrame:
        from anndata.io import read_elem

        try:
            return cast(pd.DataFrame, read_elem(self._file[place]))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ScircuitError(
                f"{self.filename}: {place} cannot be read ({error}); write the file anew with AnnData.write_h5ad."
            ) from None

    @cached_property
    def obs(self) -> pd.DataFrame:
        """The cell table."""
        return self._table("obs")

    @cached_property
    def var(self) -> pd.DataFrame:
        """The gene table of X and the layers."""
        return self._table("var")

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

    @property
    def X(self) -> Any:  # noqa: N802  (AnnData's name)
        """The matrix, unread; a file without one raises KeyError, as AnnData does."""
        return self._matrix("X")

    @cached_property
    def raw(self) -> Raw | None:
        """`raw`, or None in a file without it."""
        if "raw/X" not in self._file:
            return None
        return Raw(self._table("raw/var"), self._matrix("raw/X"))

    @cached_property
    def layers(self) -> Mapping[str, Any]:
        """Name -> matrix, unread."""
        return _Layers(self)

    @property
    def uns(self) -> Mapping[str, Any]:
        """What was written of the cells as a whole, by name, unread."""
        unread: Mapping[str, Any] = self._file.get("uns", {})
        return unread

    def _matrix(self, place: str) -> Any:
        import h5py
        from anndata.io import sparse_dataset

        node = self._file[place]
        return sparse_dataset(node) if isinstance(node, h5py.Group) else node


class _Layers(Mapping[str, Any]):
    def __init__(self, file: CellFile) -> None:
        self._of = file
        self._names = list(file._file["layers"]) if "layers" in file._file else []

    def __getitem__(self, name: str) -> Any:
        return self._of._matrix(f"layers/{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def open_cells(path: str | Path) -> Any:
    """An .h5ad file as a `CellFile`; files of AnnData 0.6 and older through AnnData's own reader, backed.

    Raises
    ------
    ScircuitError
        As `CellFile`.
    """
    import h5py

    file = CellFile(path)
    if isinstance(file._file["obs"], h5py.Group):
        return file
    import anndata

    return anndata.read_h5ad(path, backed="r")


def data_identity(adata: Any) -> str:
    """sha256 of the cells' names in order: equal iff rows are the same cells, wherever the data lie."""
    return sha256_of(np.asarray(adata.obs_names, dtype=str))
