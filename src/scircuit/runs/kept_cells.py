"""Cells that a notebook holds in memory, kept beside a run so that it can go on and be repeated."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import sparse

from scircuit._io import atomic
from scircuit.errors import ScircuitError

if TYPE_CHECKING:
    from anndata import AnnData


def keep(adata: "AnnData", file: Path) -> None:
    """Write the cells to an h5ad file once; later calls must bring the same ones.

    Raises
    ------
    ScircuitError
        Where the file holds other cells.
    """
    import anndata

    # Without what earlier calls left in it, which is not of the cells.
    cells = anndata.AnnData(adata.X, obs=adata.obs, var=adata.var, layers=dict(adata.layers), raw=_raw(adata))
    if not file.is_file():
        with atomic(file) as temporary:
            cells.copy().write_h5ad(temporary)
        return
    kept = anndata.read_h5ad(file)
    if not _same(kept, cells):
        raise ScircuitError(f"{file} holds other cells than those given; choose another out, or delete it and its run.")


def _raw(adata: "AnnData") -> Any:
    return None if adata.raw is None else {"X": adata.raw.X, "var": adata.raw.var}


def _same(kept: "AnnData", given: "AnnData") -> bool:
    """Whether the counts, names and obs of two AnnData are equal."""
    names = all(getattr(kept, axis).equals(getattr(given, axis)) for axis in ("obs_names", "var_names"))
    if not names or set(kept.layers) != set(given.layers) or list(kept.obs) != list(given.obs):
        return False
    obs = all((kept.obs[name].astype(str) == given.obs[name].astype(str)).all() for name in given.obs)
    matrices = [(kept.X, given.X), *((kept.layers[name], given.layers[name]) for name in given.layers)]
    if (kept.raw is None) != (given.raw is None):
        return False
    if given.raw is not None:
        matrices.append((kept.raw.X, given.raw.X))
    return obs and all(_equal(a, b) for a, b in matrices)


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and (sparse.csr_matrix(a) != sparse.csr_matrix(b)).nnz == 0
