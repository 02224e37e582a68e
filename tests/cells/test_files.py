"""Files of any size: tables read, matrices sliced by rows, memory bounded, however the counts are stored."""

import subprocess
import sys
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import write_elem
from scipy import sparse

from scircuit.cells import by_rows
from scircuit.cells.counts import CountSource
from scircuit.cells.files import CellFile, data_identity, open_cells
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError


@pytest.fixture
def rank(vocabulary):
    return RankValueTokenizer(vocabulary, 64)


def test_counts_in_x_raw_and_layers_dense_and_csr_read_alike(rank, cells, vocabulary, tmp_path):
    """Replogle's form (dense float32 counts in X, symbols in a column) and CELLxGENE's (raw, Ensembl index)."""
    expected = tokenize(cells, rank).fingerprint
    dense = ad.AnnData(cells.X.toarray().astype(np.float32), obs=cells.obs.copy())
    dense.var_names = [f"g{i}" for i in range(70)]
    dense.var["gene_name_index"] = [*vocabulary.genes["symbol"], *(f"X{i}" for i in range(10))]
    dense.write_h5ad(tmp_path / "replogle.h5ad")
    normal = cells.copy()
    normal.raw = cells
    normal.var["feature_name"] = dense.var["gene_name_index"].to_numpy()
    normal.X = sparse.csr_matrix(np.log1p(cells.X.toarray() / 3).astype(np.float32))
    normal = normal[:, :50].copy()
    normal.layers["counts"] = cells[:, :50].X
    normal.write_h5ad(tmp_path / "cellxgene.h5ad")
    assert tokenize(open_cells(tmp_path / "replogle.h5ad"), rank).fingerprint == expected
    file = open_cells(tmp_path / "cellxgene.h5ad")
    assert tokenize(file, rank, counts="raw").fingerprint == expected
    assert tokenize(file, rank, counts="layer:counts").fingerprint == tokenize(cells[:, :50], rank).fingerprint
    with pytest.raises(ScircuitError, match=r"non-integer values .* pass counts='raw'"):
        tokenize(file, rank)
    assert (CountSource(file, "raw").var.index == cells.var_names).all()
    assert data_identity(file) == data_identity(cells)
    pd.testing.assert_frame_equal(file.obs, cells.obs)


def in_another_order(cells, path):
    """The cells with X by columns; by rows they are in a layer."""
    column = cells.copy()
    column.X = sparse.csc_matrix(column.X)
    column.layers["rows"] = cells.X
    column.write_h5ad(path)
    return path


def test_columns_on_disk_are_put_into_rows(rank, cells, tmp_path):
    path = in_another_order(cells, tmp_path / "csc.h5ad")
    expected = tokenize(cells, rank).fingerprint
    for data in (open_cells(path), ad.read_h5ad(path, backed="r")):
        for place in ("X", "layer:rows"):
            assert tokenize(data, rank, counts=place).fingerprint == expected


def test_large_columns_on_disk_are_rewritten_once_with_their_cost_said(rank, cells, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(by_rows, "IN_MEMORY", 100)
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path / "cache"))
    data = open_cells(in_another_order(cells, tmp_path / "csc.h5ad"))
    with caplog.at_level("INFO"):
        assert tokenize(data, rank).fingerprint == tokenize(cells, rank).fingerprint
    assert "X is not stored by cells; it is rewritten once into" in caplog.text
    caplog.clear()
    rows = np.array([39, 3])
    assert tokenize(data, rank, rows=rows).fingerprint == tokenize(cells, rank, rows=rows).fingerprint
    assert "rewritten" not in caplog.text
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path / "blocked"))
    with pytest.raises(ScircuitError, match=r"cannot be written .* set SCIRCUIT_CACHE"):
        tokenize(data, rank)


def test_what_is_no_h5ad_is_refused(cells, tmp_path):
    with pytest.raises(ScircuitError, match=r"does not exist; name an .h5ad file"):
        open_cells(tmp_path / "none.h5ad")
    (tmp_path / "text.h5ad").write_text("no")
    with pytest.raises(ScircuitError, match=r"is not a readable .h5ad file"):
        open_cells(tmp_path / "text.h5ad")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["data"] = [1]
    with pytest.raises(ScircuitError, match="it has no obs"):
        CellFile(tmp_path / "other.h5ad")
    bare = ad.AnnData(obs=cells.obs.copy(), var=cells.var.copy())
    bare.write_h5ad(tmp_path / "bare.h5ad")
    with pytest.raises(ScircuitError, match="no values in X"):
        CountSource(open_cells(tmp_path / "bare.h5ad"))


def test_blocks_of_many_genes_hold_fewer_cells(cells, monkeypatch):
    monkeypatch.setattr("scircuit.cells.counts._BLOCK_BYTES", 70 * 8 * 3)
    sizes = [len(rows) for rows, _ in CountSource(cells).blocks(np.arange(10))]
    assert sizes == [3, 3, 3, 1]


READ = """
import resource, sys
import numpy as np
from scircuit.cells.counts import CountSource
from scircuit.cells.files import open_cells
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
file = open_cells(sys.argv[1])
source = CountSource(file, sys.argv[2])
list(source.blocks(np.arange(2)))
before = peak()
rows = np.sort(np.random.default_rng(0).choice(file.n_obs, 600, replace=False))
seen = sum(block.shape[0] for _, block in source.blocks(rows))
print(seen, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux only")
@pytest.mark.parametrize("place", ["X", "raw", "layer:counts"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, place: str) -> None:
    """A sample of 600 cells out of 320 MB of dense float32 counts, or of 300 MB of CSR, in a process of its own."""
    path = tmp_path / "large.h5ad"
    names = [f"ENSG{i:011d}" for i in range(8000)]
    genes = pd.DataFrame(index=names)
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", pd.DataFrame(index=[f"c{i}" for i in range(10_000)]))
        write_elem(file, "var", genes)
        where = {"X": "X", "raw": "raw/X", "layer:counts": "layers/counts"}[place]
        if place == "raw":
            indptr = np.arange(0, 10_001) * 2500
            file.create_group("raw").attrs.update({"encoding-type": "raw", "encoding-version": "0.1.0"})
            write_elem(file, "raw/var", genes)
            group = file.create_group(where)
            group.attrs.update(
                {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array([10_000, 8000])}
            )
            group["indptr"] = indptr
            group["indices"] = np.tile(np.arange(0, 7500, 3, dtype=np.int64), 10_000)
            group["data"] = np.tile(np.array([1, 2], dtype=np.float32), int(indptr[-1]) // 2)
        else:
            data = file.create_dataset(where, (10_000, 8000), dtype="f4", chunks=(100, 8000))
            data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            block = rng.poisson(0.3, (1000, 8000)).astype(np.float32)
            for start in range(0, 10_000, 1000):
                data[start : start + 1000] = block
    assert path.stat().st_size > 290e6
    done = subprocess.run([sys.executable, "-c", READ, path, place], capture_output=True, text=True, check=True)
    seen, grown = done.stdout.split()
    assert int(seen) == 600
    assert float(grown) < 150
