"""Bad and awkward AnnData: refused in one sentence, or read alike however it is stored."""

import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scircuit.cells.binning import BinningTokenizer
from scircuit.cells.counts import CountSource
from scircuit.cells.matching import match_genes
from scircuit.cells.pickles import read_plain_pickle
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import tokenize
from scircuit.cells.vocabulary import from_geneformer, from_scgpt
from scircuit.errors import ScircuitError


@pytest.fixture
def rank(vocabulary):
    return RankValueTokenizer(vocabulary, 64)


def with_x(cells, change):
    other = cells.copy()
    other.X = change(other.X.toarray())
    return other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.where(x == x.max(), np.nan, x), "NaN or infinite"),
        (lambda x: np.where(x == x.max(), -1.0, x), "negative values .*-1 at cell"),
        (lambda x: np.log1p(x), "non-integer values .*looks normalised.*scale='log1p'"),
    ],
)
def test_values_that_are_no_counts_are_refused(rank, cells, change, message):
    with pytest.raises(ScircuitError, match=message):
        tokenize(with_x(cells, change), rank)


def test_the_refusal_names_the_layer_that_holds_counts(rank, cells):
    data = with_x(cells, np.log1p)
    data.layers["raw_counts"] = cells.X
    with pytest.raises(ScircuitError, match="pass counts='layer:raw_counts'"):
        tokenize(data, rank)
    data.raw = cells
    with pytest.raises(ScircuitError, match="pass counts='raw'"):
        tokenize(data, rank)
    expected = tokenize(cells, rank).fingerprint
    assert tokenize(data, rank, counts="layer:raw_counts").fingerprint == expected
    assert tokenize(data, rank, counts="raw").fingerprint == expected
    with pytest.raises(ScircuitError, match="one of: X, raw, layer:raw_counts"):
        tokenize(data, rank, counts="counts")
    with pytest.raises(ScircuitError, match="'counts' or 'log1p'"):
        tokenize(data, rank, scale="log2")


def test_log1p_values_give_the_ranks_of_the_counts(rank, cells):
    depth = cells.X.sum(axis=1).A1 if hasattr(cells.X.sum(axis=1), "A1") else np.asarray(cells.X.sum(axis=1)).ravel()
    normal = with_x(cells, lambda x: np.log1p(x / depth[:, None] * 1e4).astype(np.float32))
    assert tokenize(normal, rank, scale="log1p").fingerprint == tokenize(cells, rank).fingerprint


def test_dense_sparse_backed_and_float32_read_alike_and_nothing_is_modified(rank, cells, tmp_path):
    expected = tokenize(cells, rank).fingerprint
    cells.write_h5ad(tmp_path / "sparse.h5ad")
    dense = with_x(cells, lambda x: x.astype(np.float32))
    dense.write_h5ad(tmp_path / "dense.h5ad")
    before = (cells.X.copy(), cells.obs.copy(), cells.var.copy())
    column = cells.copy()
    column.X = sparse.csc_matrix(column.X)
    variants = [dense, column, *(ad.read_h5ad(tmp_path / f"{n}.h5ad", backed="r") for n in ("sparse", "dense"))]
    for data in variants:
        assert tokenize(data, rank).fingerprint == expected
    rows = np.array([30, 2, 17])
    assert tokenize(variants[2], rank, rows=rows).fingerprint == tokenize(cells, rank, rows=rows).fingerprint
    assert (before[0] != cells.X).nnz == 0
    pd.testing.assert_frame_equal(cells.obs, before[1])
    pd.testing.assert_frame_equal(cells.var, before[2])


def test_empty_cells_are_dropped_and_counted(rank, cells):
    data = with_x(cells, lambda x: np.where(np.isin(np.arange(40), [4, 9])[:, None], 0.0, x))
    store = tokenize(data, rank)
    assert store.info["n_empty"] == 2
    assert "cell4" not in store.cells.index
    assert len(store) == 38
    with pytest.raises(ScircuitError, match="No cell has a count"):
        tokenize(with_x(cells, np.zeros_like), rank)


def test_genes_of_another_species_are_named(cells, vocabulary):
    mouse = cells.copy()
    mouse.var_names = [f"ENSMUSG{i:011d}" for i in range(70)]
    with pytest.raises(ScircuitError, match="ENSMUSG00000000000 are of another species"):
        match_genes(mouse.var, vocabulary)
    mouse.var_names = [f"Actb{chr(97 + i % 26)}{i}" for i in range(70)]
    with pytest.raises(ScircuitError, match="look like mouse"):
        match_genes(mouse.var, vocabulary)
    mouse.var_names = [f"peak-{i}" for i in range(70)]
    with pytest.raises(ScircuitError, match=r"Only 0 genes.*peak-0.*gene_column="):
        match_genes(mouse.var, vocabulary)


def test_symbols_ensembl_and_columns_are_detected(cells, vocabulary):
    symbols = cells.copy()
    symbols.var_names = [*vocabulary.genes["symbol"], *(f"X{i}" for i in range(10))]
    found = match_genes(symbols.var, vocabulary)
    assert (found.kind, found.source, found.n_genes) == ("symbol", "index", 60)
    symbols.var["feature_id"] = cells.var_names
    symbols.var_names = [f"row{i}" for i in range(70)]
    found = match_genes(symbols.var, vocabulary)
    assert (found.kind, found.source) == ("ensembl", "feature_id")
    assert "matched 60 genes of 70 columns by ensembl" in found.describe()
    with pytest.raises(ScircuitError, match="gene_column may be one of: index, feature_id"):
        match_genes(symbols.var, vocabulary, gene_column="symbol")
    lower = cells.copy()
    lower.var_names = [n.lower() for n in [*vocabulary.genes["symbol"], *(f"X{i}" for i in range(10))]]
    with pytest.raises(ScircuitError, match="Only 0 genes"):
        match_genes(lower.var, vocabulary)


def test_pickles_with_code_are_refused(tmp_path):
    for bad in (np.arange, pd.DataFrame, {"a": {1, 2}, "b": range}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(bad))
        with pytest.raises(ScircuitError, match="is refused as a dictionary: it asks for"):
            read_plain_pickle(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.float64(2.5), "b": np.int32(3)}))
    content = read_plain_pickle(tmp_path / "x.pkl")
    assert content == {"a": 2.5, "b": 3}
    assert type(content["a"]) is float
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1})[:-3])
    with pytest.raises(ScircuitError, match="is refused"):
        read_plain_pickle(tmp_path / "x.pkl")
    with pytest.raises(ScircuitError, match="does not exist"):
        read_plain_pickle(tmp_path / "y.pkl")


@pytest.fixture
def dictionaries(shared_data, tmp_path):
    """The published dictionaries under their published names."""
    for file in (shared_data / "tokenizers").glob("geneformer_*.pkl"):
        (tmp_path / file.name.removeprefix("geneformer_")).symlink_to(file)
    return tmp_path


def test_real_geneformer_dictionaries(dictionaries, shared_data):
    v2, v1 = from_geneformer(dictionaries, "gc104M"), from_geneformer(dictionaries, "gc30M")
    assert (v2.size, len(v2.genes)) == (20275, 20271)
    assert (v1.size, len(v1.genes)) == (25426, 25424)
    assert dict(v2.special) == {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}
    assert "<cls>" not in v1.special
    pbmc = ad.read_h5ad(shared_data / "scrna" / "pbmc3k_counts.h5ad", backed="r")
    by_id = match_genes(pbmc.var, v2)
    by_symbol = match_genes(pbmc.var[[]], v2)
    assert (by_id.kind, by_symbol.kind) == ("ensembl", "symbol")
    both = (by_id.row >= 0) & (by_symbol.row >= 0)
    disagree = (by_id.row[both] != by_symbol.row[both]).mean()
    assert disagree < 0.02, "symbols disagree with true ids for 1-2 % of genes at most"
    store = tokenize(pbmc, RankValueTokenizer(v2, 4096), rows=np.arange(30))
    assert 0.93 <= store.info["share_of_counts_matched"] <= 0.97


@pytest.mark.filterwarnings("ignore:Element .* was written without encoding metadata")
def test_real_scgpt_vocabulary(shared_data):
    vocabulary = from_scgpt(shared_data / "tokenizers" / "scgpt_whole_human_vocab.json")
    assert vocabulary.size == 60697
    assert dict(vocabulary.special) == {"<pad>": 60694, "<cls>": 60695, "<eoc>": 60696}
    pbmc = ad.read_h5ad(shared_data / "scrna" / "pbmc_5k_protein_v3.h5ad", backed="r")
    found = match_genes(pbmc.var, vocabulary)
    assert found.kind == "symbol"
    store = tokenize(pbmc, BinningTokenizer(vocabulary), rows=np.arange(40))
    assert 0.95 <= store.info["share_of_counts_matched"] <= 0.99


def test_blocks_name_the_cell_and_gene_of_a_bad_value(cells):
    data = with_x(cells, lambda x: x.astype(float))
    data.X[33, 12] = -4.0
    with pytest.raises(ScircuitError, match="-4 at cell 'cell33', gene 'ENSG00000000013'"):
        list(CountSource(data).blocks(np.arange(40), size=8))
