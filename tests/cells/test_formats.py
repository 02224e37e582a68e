"""One set of cells in every format that people have: the same tokens from each."""

import gzip
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from cases import renamed, symbols, write_loom, write_mtx, write_tenx, write_with_old_categories, write_with_records
from scipy import sparse

from scircuit.cells import by_rows
from scircuit.cells.counts import CountSource
from scircuit.cells.files import open_cells
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.sampling import matching
from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError


@pytest.fixture
def rank(vocabulary):
    return RankValueTokenizer(vocabulary, 64)


@pytest.fixture
def expected(cells, rank):
    return tokenize(cells, rank).fingerprint


def write_zarr(cells: ad.AnnData, path: Path, version: int) -> Path:
    """Written by AnnData where it can: before 0.12 it did not bring zarr with it."""
    pytest.importorskip("zarr")
    old = ad.settings.zarr_write_format
    ad.settings.zarr_write_format = version
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cells.write_zarr(path)
    finally:
        ad.settings.zarr_write_format = old
    return path


FORMATS = {
    "h5ad": lambda cells, folder: cells.write_h5ad(folder / "c.h5ad") or folder / "c.h5ad",
    "h5ad, gzip": lambda cells, folder: cells.write_h5ad(folder / "c.h5ad", compression="gzip") or folder / "c.h5ad",
    "h5ad, lzf": lambda cells, folder: cells.write_h5ad(folder / "c.h5ad", compression="lzf") or folder / "c.h5ad",
    "h5ad under another name": lambda cells, folder: cells.write_h5ad(folder / "c.dat") or folder / "c.dat",
    "AnnData 0.7": lambda cells, folder: write_with_old_categories(cells, folder / "c.h5ad"),
    "AnnData 0.6": lambda cells, folder: write_with_records(cells, folder / "c.h5ad"),
    "zarr 2": lambda cells, folder: write_zarr(cells, folder / "c.zarr", 2),
    "zarr 3": lambda cells, folder: write_zarr(cells, folder / "c.zarr", 3),
    "Cell Ranger 3 h5": lambda cells, folder: write_tenx(cells, folder / "c.h5"),
    "Cell Ranger 2 h5": lambda cells, folder: write_tenx(cells, folder / "c.h5", genomes=("hg19", "mm10")),
    "Cell Ranger 3 folder": lambda cells, folder: write_mtx(cells, folder / "m", zipped=True),
    "Cell Ranger 2 folder": lambda cells, folder: write_mtx(cells, folder / "m", old=True),
    "a sample of GEO": lambda cells, folder: write_mtx(cells, folder / "m", zipped=True, prefix="GSM1_s1_"),
    "loom": lambda cells, folder: write_loom(cells, folder / "c.loom"),
}


@pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning", "ignore:Element.*was written")
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_tokens(name, cells, rank, expected, tmp_path):
    path = FORMATS[name](cells, tmp_path)
    assert tokenize(path, rank).fingerprint == expected
    data = open_cells(path)
    assert (data.n_obs, data.n_vars) == cells.shape
    rows = np.array([31, 2, 3, 4, 17])
    assert tokenize(data, rank, rows=rows).fingerprint == tokenize(cells, rank, rows=rows).fingerprint
    assert list(tokenize(str(path), rank, rows=rows).cells.index) == list(cells.obs_names[rows])
    if "kind" in data.obs:
        assert (matching(data.obs, {"kind": "b"}) == np.arange(1, 40, 2)).all()


def test_dense_zarr_and_layers_of_looms_are_read_by_rows(cells, rank, expected, tmp_path):
    dense = cells.copy()
    dense.X = cells.X.toarray().astype(np.float32)
    assert tokenize(write_zarr(dense, tmp_path / "d.zarr", 3), rank).fingerprint == expected
    assert tokenize(write_loom(cells, tmp_path / "c.loom"), rank, counts="layer:spliced").fingerprint == expected


@pytest.mark.parametrize("version", [2, 3])
def test_columns_of_a_zarr_are_put_into_rows(cells, rank, expected, tmp_path, monkeypatch, version):
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path / "cache"))
    column = cells.copy()
    column.X = sparse.csc_matrix(column.X)
    path = write_zarr(column, tmp_path / "c.zarr", version)
    assert tokenize(path, rank).fingerprint == expected
    monkeypatch.setattr(by_rows, "IN_MEMORY", 64)
    assert tokenize(path, rank).fingerprint == expected


def test_a_large_folder_is_rewritten_by_cells(cells, rank, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(by_rows, "IN_MEMORY", 64)
    assert tokenize(write_mtx(cells, tmp_path / "m"), rank).fingerprint == expected
    assert len(list((tmp_path / "cache" / "rows").glob("*.h5"))) == 1


def test_tables_in_memory_are_taken_and_left_alone(cells, rank, expected):
    table = pd.DataFrame(cells.X.toarray(), index=cells.obs_names, columns=cells.var_names)
    before = table.copy()
    assert tokenize(table, rank).fingerprint == expected
    assert tokenize(table.astype(int).set_axis(symbols(cells), axis=1), rank).fingerprint == expected
    pd.testing.assert_frame_equal(table, before)
    with pytest.raises(ScircuitError, match="Column 'kind' of the table holds no numbers"):
        tokenize(table.assign(kind="a"), rank)


def test_nullable_strings_and_a_raw_that_is_null(cells, rank, expected, tmp_path):
    data = cells.copy()
    data.obs["note"] = pd.array(["yes", None] * 20, dtype="string")
    data.obs["some"] = pd.array([True, None] * 20, dtype="boolean")
    with ad.settings.override(allow_write_nullable_strings=True):
        data.write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        if "raw" not in file:
            file.create_dataset("raw", data=h5py.Empty("f")).attrs.update(
                {"encoding-type": "null", "encoding-version": "0.1.0"}
            )
    opened = open_cells(tmp_path / "c.h5ad")
    assert opened.raw is None
    store = tokenize(opened, rank)
    assert store.fingerprint == expected
    store.write(tmp_path / "tokens")
    assert type(store).read(tmp_path / "tokens").cells["note"].isna().sum() == 20


def test_compression_that_is_not_at_hand_is_named(cells, tmp_path):
    path = tmp_path / "c.h5ad"
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file["X/data"]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((8,))
        made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple((8,))
        data = h5py.h5d.create(file.id, b"X/data", h5py.h5t.NATIVE_FLOAT, space, made)
        numcodecs = pytest.importorskip("numcodecs")
        data.write_direct_chunk((0,), numcodecs.zstd.compress(np.ones(8, np.float32).tobytes(), 1))
    if not h5py.h5z.filter_avail(32015):
        with pytest.raises(ScircuitError, match=r"is compressed with .*pip install hdf5plugin"):
            open_cells(path)


def test_what_is_not_read_names_the_way_out(cells, tmp_path):
    cells.write_h5ad(tmp_path / "c.h5ad")
    (tmp_path / "c.h5ad.gz").write_bytes(gzip.compress((tmp_path / "c.h5ad").read_bytes()))
    for name, way in {
        "c.h5ad.gz": r"run `gunzip .*c\.h5ad\.gz` and name .*c\.h5ad\.",
        "c.rds": "zellkonverter::writeH5AD",
        "c.csv": "read it with pandas",
        "matrix.mtx": "name the folder that holds it",
    }.items():
        (tmp_path / name).touch()
        with pytest.raises(ScircuitError, match=way):
            open_cells(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScircuitError, match=r"is a folder without counts \(found nothing\)"):
        open_cells(tmp_path / "empty")
    zarr = pytest.importorskip("zarr")
    zarr.open_group(tmp_path / "s.zarr", mode="w").create_group("tables/table")
    with pytest.raises(ScircuitError, match=r"SpatialData folder; name the table of cells"):
        open_cells(tmp_path / "s.zarr")


def test_damaged_folders_say_what_is_wrong(cells, tmp_path):
    folder = write_mtx(cells, tmp_path / "m")
    (folder / "barcodes.tsv").write_text("one\ntwo\n")
    with pytest.raises(ScircuitError, match=r"is 70 x 40, but there are 70 features and 2 barcodes"):
        open_cells(folder)
    (folder / "barcodes.tsv").unlink()
    with pytest.raises(ScircuitError, match=r"has no barcodes.tsv; a folder of counts holds"):
        open_cells(folder)
    two = write_mtx(cells, tmp_path / "two", prefix="a_")
    (two / "b_matrix.mtx").write_text("")
    with pytest.raises(ScircuitError, match=r"holds a_matrix.mtx and b_matrix.mtx"):
        open_cells(two)
    cut = write_mtx(cells, tmp_path / "cut")
    (cut / "matrix.mtx").write_text((cut / "matrix.mtx").read_text()[:-3].rstrip("0123456789\n") + "x\n")
    with pytest.raises(ScircuitError, match=r"matrix.mtx is damaged"):
        open_cells(cut)
    with pytest.raises(ScircuitError, match="holds the genomes A, B, none or several"):
        open_cells(write_tenx(cells, tmp_path / "c.h5", genomes=("A", "B")))


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_antibodies_beside_the_genes_count_nowhere(cells, rank, expected):
    both = renamed(cells, symbols(cells))
    both.var["feature_types"] = "Gene Expression"
    antibody = ad.AnnData(
        np.full((40, 1), 999.0), obs=cells.obs, var=pd.DataFrame({"feature_types": "Antibody Capture"}, index=["GENE3"])
    )
    data = ad.AnnData(
        sparse.hstack([both.X, antibody.X], format="csr"), obs=cells.obs, var=pd.concat([both.var, antibody.var])
    )
    assert tokenize(data, rank).fingerprint == expected
    paper = RankValueTokenizer(rank.vocabulary, 64, "paper")
    assert tokenize(data, paper).fingerprint == tokenize(cells, paper).fingerprint


def test_a_file_without_cells_says_so(cells, rank, tmp_path):
    cells[:0].write_h5ad(tmp_path / "c.h5ad")
    for data in (cells[:0], tmp_path / "c.h5ad"):
        with pytest.raises(ScircuitError, match="The file holds no cells"):
            tokenize(data, rank)
    with pytest.raises(ScircuitError, match="The file holds no cells"):
        CountSource(open_cells(tmp_path / "c.h5ad"))
