"""`open_cells`: cells in any format; `CellFile`: AnnData's layout of any size, tables read whole, matrices by rows."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit._io import sha256_of
from scircuit._optional import optional
from scircuit.cells.loom import is_loom, open_loom
from scircuit.cells.opened import Tables
from scircuit.cells.tenx import is_mtx_folder, is_tenx, open_mtx_folder, open_tenx
from scircuit.errors import ScircuitError


class Raw(NamedTuple):
    """`raw` of a file: its own gene table and its matrix, unread."""

    var: pd.DataFrame
    X: Any


class CellFile(Tables):
    """What the package reads of an AnnData, straight from the file.

    AnnData's own backed mode leaves only X on disk: it loads every layer and every embedding of the file. Here
    nothing but `obs` and `var` is loaded; X, `raw.X` and the layers are handles that are sliced by rows.

    Parameters
    ----------
    path
        An .h5ad file, or a .zarr folder in AnnData's layout (zarr 2 or 3).

    Raises
    ------
    ScircuitError
        When the file is missing, is no HDF5 file, lacks a package that its compression needs, or holds no obs or var.
    """

    def __init__(self, path: str | Path) -> None:
        self.filename = Path(path)
        self._file = _zarr(self.filename) if self.filename.is_dir() else _hdf5(self.filename)
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
        from anndata.io import sparse_dataset

        node = self._file[place]
        return sparse_dataset(node) if hasattr(node, "keys") else node


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


def open_cells(data: Any) -> Any:
    """Cells in any form: an AnnData, a DataFrame (cells x genes), or the path of a file or folder.

    Paths are .h5ad files of every age, .zarr folders, 10x .h5 files, folders with matrix.mtx, and .loom files; what a
    file holds decides, not its name. Counts stay on disk and are read by rows.

    Raises
    ------
    ScircuitError
        When there is no such file, it is damaged, or of a kind that is not read; with the way to one that is.
    """
    if isinstance(data, pd.DataFrame):
        return _of_table(data)
    if not isinstance(data, str | Path):
        return data
    path = Path(data)
    if path.is_dir():
        return _open_folder(path)
    if path.is_file() and (fix := _OTHER.get(path.suffix.lower())):
        raise ScircuitError(f"{path} is not read as it is; {fix.format(path=path, stem=path.with_suffix(''))}.")
    file = _hdf5(path)
    if is_loom(file):
        return open_loom(path, file)
    if is_tenx(file):
        return open_tenx(path, file)
    return _of_old_anndata(path) if hasattr(file.get("obs"), "dtype") else CellFile(path)


_OTHER = {
    ".gz": "run `gunzip {path}` and name {stem}",
    ".zip": "run `unzip {path}` and name what comes out of it",
    ".mtx": "name the folder that holds it beside features.tsv and barcodes.tsv",
    ".rds": "write it as .h5ad in R: zellkonverter::writeH5AD, or anndataR::write_h5ad",
    ".h5seurat": "write it as .h5ad in R: SeuratDisk::Convert('{path}', dest = 'h5ad')",
    ".csv": "read it with pandas and pass the table (cells x genes), or write it with AnnData(table).write_h5ad",
}
_OTHER |= {".tsv": _OTHER[".csv"], ".txt": _OTHER[".csv"]}
"""What people have that is not read, with the way out."""


def _of_table(table: pd.DataFrame) -> Any:
    """A table of cells x genes as an AnnData."""
    import anndata

    odd = [name for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    if odd:
        raise ScircuitError(f"Column {odd[0]!r} of the table holds no numbers; pass cells x genes, names as the index.")
    obs, var = (pd.DataFrame(index=names.astype(str)) for names in (table.index, table.columns))
    return anndata.AnnData(sparse.csr_matrix(table.to_numpy(dtype=np.float64)), obs=obs, var=var)


def _of_old_anndata(path: Path) -> Any:
    """A file of AnnData 0.6 or older, through AnnData's own reader: its tables are records."""
    import anndata

    with warnings.catch_warnings():
        # Its reader asks to write the file anew on every load; that is the user's to decide.
        warnings.simplefilter("ignore")
        return anndata.read_h5ad(path, backed="r")


def _open_folder(path: Path) -> Any:
    if is_mtx_folder(path):
        return open_mtx_folder(path)
    if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")):
        return CellFile(path)
    held = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
    raise ScircuitError(
        f"{path} is a folder without counts (found {held}); name a .zarr in AnnData's layout, a folder with "
        "matrix.mtx, features.tsv and barcodes.tsv, or a file."
    )


def _zarr(path: Path) -> Any:
    zarr = optional("zarr", f"{path} is a zarr store, which needs zarr; pip install 'scircuit[zarr]'.")
    try:
        root = zarr.open_group(path, mode="r")
    except Exception as error:  # zarr's own kinds of error differ between its versions
        raise ScircuitError(
            f"{path} is not a readable zarr folder ({error}); write it with AnnData.write_zarr."
        ) from None
    if "obs" not in root and (path / "tables").is_dir():
        tables = ", ".join(str(table) for table in sorted((path / "tables").iterdir()) if table.is_dir())
        raise ScircuitError(f"{path} is a SpatialData folder; name the table of cells in it: {tables}.")
    return root


def _hdf5(path: Path) -> Any:
    import h5py

    if not path.is_file():
        raise ScircuitError(f"{path} does not exist; name an .h5ad file.")
    try:
        if not h5py.is_hdf5(path):
            raise OSError("it is not an HDF5 file")
        file = h5py.File(path, "r")
    except OSError as error:
        raise ScircuitError(
            f"{path} is not a readable .h5ad file ({error}); write it with AnnData.write_h5ad."
        ) from None
    if missing := _missing_filters(file):
        raise ScircuitError(
            f"{path} is compressed with {missing}, which h5py cannot undo by itself; pip install hdf5plugin."
        )
    return file


def _missing_filters(file: Any) -> str:
    """Name of a compression in the file that is not at hand, or nothing; plugins that are installed are loaded."""
    import h5py

    with suppress(ModuleNotFoundError):
        import hdf5plugin  # noqa: F401

    names: list[str] = []

    def look(_: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            made = node.id.get_create_plist()
            for code, _flags, _values, name in (made.get_filter(i) for i in range(made.get_nfilters())):
                if not h5py.h5z.filter_avail(code):
                    names.append(name.decode() or f"filter {code}")

    file.visititems(look)
    return names[0] if names else ""


def data_identity(adata: Any) -> str:
    """sha256 of the cells' names in order: equal iff rows are the same cells, wherever the data lie."""
    return sha256_of(np.asarray(adata.obs_names, dtype=str))
