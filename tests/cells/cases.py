"""Files as people have them: the same counts under other names, in other formats, of other ages."""

import gzip
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.io import mmwrite


def symbols(cells: ad.AnnData) -> list[str]:
    """The fixture's ids as its symbols: ENSG00000000001 is GENE0; what no model knows is called X0, X1, ..."""
    known = [f"GENE{int(name[4:]) - 1}" for name in cells.var_names[:60]]
    return [*known, *(f"X{i}" for i in range(cells.n_vars - 60))]


def renamed(cells: ad.AnnData, names: list[str]) -> ad.AnnData:
    other = cells.copy()
    other.var = pd.DataFrame(index=names)
    return other


def write_mtx(cells: ad.AnnData, folder: Path, *, zipped: bool = False, prefix: str = "", old: bool = False) -> Path:
    folder.mkdir()
    mmwrite(folder / f"{prefix}matrix.mtx", sparse.coo_matrix(cells.X.T.astype(int)))
    genes = {"a": cells.var_names, "b": symbols(cells)} | ({} if old else {"c": "Gene Expression"})
    name = "genes.tsv" if old else "features.tsv"
    pd.DataFrame(genes).to_csv(folder / f"{prefix}{name}", sep="\t", header=False, index=False)
    pd.DataFrame(cells.obs_names).to_csv(folder / f"{prefix}barcodes.tsv", header=False, index=False)
    if zipped:
        for path in list(folder.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return folder


def write_tenx(cells: ad.AnnData, path: Path, *, genomes: tuple[str, ...] = ()) -> Path:
    """Cell Ranger 3's `.h5`, or with `genomes` the form before it, where the first genome holds the counts."""
    counts = sparse.csr_matrix(cells.X).astype(np.int32)
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        for i, name in enumerate(genomes or ("matrix",)):
            group = file.create_group(name)
            group["data"], group["indices"], group["indptr"] = counts.data * (i == 0), counts.indices, counts.indptr
            group["shape"] = np.array(counts.shape[::-1])
            group.create_dataset("barcodes", data=list(cells.obs_names), dtype=text)
            table = {"genes": list(cells.var_names), "gene_names": symbols(cells)}
            if not genomes:
                kind = ["Gene Expression"] * cells.n_vars
                table = {
                    "features/id": table["genes"],
                    "features/name": table["gene_names"],
                    "features/feature_type": kind,
                }
            for place, values in table.items():
                group.create_dataset(place, data=values, dtype=text)
    return path


def write_loom(cells: ad.AnnData, path: Path, *, chunks: tuple[int, int] = (64, 8)) -> Path:
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.create_dataset("matrix", data=cells.X.toarray().T.astype(np.float32), chunks=chunks, compression="gzip")
        file.create_dataset("layers/spliced", data=cells.X.toarray().T.astype(np.float32))
        file.create_dataset("row_attrs/Gene", data=symbols(cells), dtype=text)
        file.create_dataset("row_attrs/Accession", data=list(cells.var_names), dtype=text)
        file.create_dataset("col_attrs/CellID", data=list(cells.obs_names), dtype=text)
        file.create_dataset("col_attrs/kind", data=list(cells.obs["kind"].astype(str)), dtype=text)
        file.create_dataset("col_attrs/umap", data=np.zeros((cells.n_obs, 2)))
    return path


def write_with_old_categories(cells: ad.AnnData, path: Path) -> Path:
    """As AnnData 0.7 wrote: codes with a reference to their categories."""
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        for key in list(file.attrs):
            del file.attrs[key]
        group = file["obs"]
        group.attrs["encoding-version"] = "0.1.0"
        categories = group.create_group("__categories")
        codes, values = group["kind"]["codes"][:], group["kind"]["categories"][:]
        del group["kind"]
        categories["kind"] = values
        group["kind"] = codes
        group["kind"].attrs["categories"] = categories["kind"].ref
        file["var"].attrs["encoding-version"] = "0.1.0"
    return path


def write_with_records(cells: ad.AnnData, path: Path) -> Path:
    """As AnnData 0.6 wrote: tables are records, sparse matrices name their format."""
    counts = sparse.csr_matrix(cells.X).astype(np.float32)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", counts.shape
        group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
        obs = [(name.encode(), int(kind == "b")) for name, kind in zip(cells.obs_names, cells.obs["kind"], strict=True)]
        file["obs"] = np.array(obs, dtype=[("index", "S16"), ("kind", "i1")])
        file["var"] = np.array([(name.encode(),) for name in cells.var_names], dtype=[("index", "S16")])
        file["uns/kind_categories"] = np.array([b"a", b"b"])
    return path
