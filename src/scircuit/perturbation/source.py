"""The matrix of a screen wherever it lies: in memory, backed, or in a file of any size, read by rows."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit._io import sha256_of
from scircuit.errors import ScircuitError


class Source(NamedTuple):
    """A matrix that can be sliced by rows, its tables, whether log1p is on record, and an identity of the data."""

    matrix: Any
    obs: pd.DataFrame
    var: pd.DataFrame
    log1p: bool
    identity: str


def open_source(data: Any, layer: str | None) -> Source:
    """Open an AnnData or the path of an h5ad file, of which only `obs` and `var` are read."""
    if isinstance(data, str | Path):
        return _open_file(Path(data), layer)
    if layer is not None and layer not in data.layers:
        raise ScircuitError(f"the AnnData has no layer {layer!r} (it has {', '.join(data.layers) or 'none'}).")
    matrix = data.X if layer is None else data.layers[layer]
    if sparse.issparse(matrix):
        matrix = matrix.tocsr()
        identity = sha256_of(matrix.data, matrix.indices, matrix.indptr)
    elif isinstance(matrix, np.ndarray):
        identity = sha256_of(np.ascontiguousarray(matrix))
    else:
        identity = _file_identity(Path(data.filename))
    return Source(matrix, data.obs, data.var, layer is None and "log1p" in data.uns, identity)


def _open_file(path: Path, layer: str | None) -> Source:
    import h5py
    from anndata.io import read_elem, sparse_dataset

    if not path.is_file():
        raise ScircuitError(f"{path} does not exist; give the path of an h5ad file.")
    if not h5py.is_hdf5(path):
        raise ScircuitError(f"{path} is not an HDF5 file; give an h5ad file.")
    file = h5py.File(path, "r")
    place = "X" if layer is None else f"layers/{layer}"
    if place not in file or "obs" not in file:
        raise ScircuitError(f"{path} has no {place if 'obs' in file else 'obs'}; give an h5ad file with it.")
    node = file[place]
    if isinstance(node, h5py.Group):
        matrix = sparse_dataset(node)
        if matrix.format != "csr":
            raise ScircuitError(
                f"{path} stores {place} by columns (CSC), which cannot be streamed by cells; "
                "rewrite it as CSR or load it into memory."
            )
    else:
        matrix = node
    log1p = layer is None and "uns/log1p" in file
    obs, var = (cast(pd.DataFrame, read_elem(file[name])) for name in ("obs", "var"))
    return Source(matrix, obs, var, log1p, _file_identity(path))


def _file_identity(path: Path) -> str:
    stat = path.stat()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def sample(matrix: Any, n_rows: int = 256) -> np.ndarray:
    """Values of some rows at the start, the middle and the end."""
    total = matrix.shape[0]
    values = []
    for start in sorted({0, max(0, total // 2 - n_rows), max(0, total - n_rows)}):
        rows = matrix[start : min(start + n_rows, total)]
        values.append(rows.data if sparse.issparse(rows) else np.asarray(rows).ravel())
    return np.concatenate(values)
