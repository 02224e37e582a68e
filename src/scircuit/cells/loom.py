"""Loom files: genes by cells, dense and in chunks; read by cells."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scircuit.cells.opened import DenseGenes, Opened

_CELLS = ("CellID", "obs_names", "cell_id", "barcode", "Barcode")
_GENES = ("Gene", "var_names", "gene", "Symbol", "Accession")


def is_loom(file: Any) -> bool:
    """Whether an HDF5 file is a loom."""
    return "matrix" in file and "row_attrs" in file and "col_attrs" in file


def open_loom(path: Path, file: Any) -> Opened:
    """A loom file: `matrix` is X; `layers` are its layers; one-dimensional attributes are the columns of the tables."""
    matrix = DenseGenes(file["matrix"])
    obs = _table(file["col_attrs"], matrix.shape[0], _CELLS)
    var = _table(file["row_attrs"], matrix.shape[1], _GENES)
    layers = {name: DenseGenes(file["layers"][name]) for name in file.get("layers", {}) if name}
    return Opened(path, obs, var, matrix, layers)


def _table(attributes: Any, n: int, names: tuple[str, ...]) -> pd.DataFrame:
    """The attributes as columns, the first of `names` that there is as index too."""
    table = pd.DataFrame(index=pd.RangeIndex(n).astype(str))
    for name, values in attributes.items():
        if values.shape == (n,):
            table[name] = values.asstr()[:] if values.dtype.kind in "OS" else np.asarray(values[:])
    for name in names:
        if name in table:
            return table.set_axis(pd.Index(table[name].astype(str).to_numpy()), axis=0)
    return table
