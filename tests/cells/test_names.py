"""Gene names as files have them: each matched by its own kind, what was taken off said, nothing guessed."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from cases import renamed, symbols
from scipy import sparse

from scircuit.cells.matching import match_genes
from scircuit.cells.names import read_name
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.cells.vocabulary import Vocabulary
from scircuit.errors import ScircuitError


@pytest.fixture
def rank(vocabulary):
    return RankValueTokenizer(vocabulary, 64)


@pytest.mark.parametrize(
    ("written", "kind", "text", "off"),
    [
        ("ENSG00000167286", "id", "ENSG00000167286", ()),
        ("ENSG00000167286.9", "id", "ENSG00000167286", ("version",)),
        ("ENSG00000182378.14_PAR_Y", "id", "ENSG00000182378", ("version", "_PAR_Y")),
        ("ENSGR0000182378", "id", "ENSG00000182378", ("_PAR_Y",)),
        ("ensg00000167286", "id", "ENSG00000167286", ("case",)),
        (" CD3D\t", "symbol", "CD3D", ("blanks",)),
        ("GRCh38_ENSG00000167286", "id", "ENSG00000167286", ("genome prefix",)),
        ("GRCh38___CD3D", "symbol", "CD3D", ("genome prefix",)),
        ("GRCh38-2020-A_CD3D", "symbol", "CD3D", ("genome prefix",)),
        ("hg19_CD3D", "symbol", "CD3D", ("genome prefix",)),
        ("mm10___Actb", "other genome", "mm10___Actb", ()),
        ("CD3D_ENSG00000167286", "id", "ENSG00000167286", ("symbol beside the id",)),
        ("ENSG00000167286.9|CD3D", "id", "ENSG00000167286", ("symbol beside the id", "version")),
        ("RN7SL1_ENSG00000276168", "id", "ENSG00000276168", ("symbol beside the id",)),
        ("ENSA", "symbol", "ENSA", ()),
        ("Y_RNA", "symbol", "Y_RNA", ()),
        ("RP11-34P13.7", "symbol", "RP11-34P13.7", ()),
        ("NaN", "blank", "", ()),
        ("", "blank", "", ()),
    ],
)
def test_a_name_is_taken_apart(written, kind, text, off):
    found = read_name(written)
    assert (found.kind, found.text, found.off) == (kind, text, off)


def ids(cells):
    return cells.var_names.tolist()


NAMES = {
    "half ids, half symbols": lambda cells: [s if i % 2 else e for i, (e, s) in enumerate(both(cells))],
    "versions": lambda cells: [f"{name}.{i % 20}" for i, name in enumerate(ids(cells))],
    "PAR_Y": lambda cells: [f"{name}.3_PAR_Y" if i < 5 else name for i, name in enumerate(ids(cells))],
    "genome prefix on ids": lambda cells: [f"GRCh38_{name}" for name in ids(cells)],
    "genome prefix on symbols": lambda cells: [f"GRCh38___{name}" for name in symbols(cells)],
    "symbol and id": lambda cells: [f"{s}_{e}" for e, s in both(cells)],
    "id and symbol": lambda cells: [f"{e}|{s}" for e, s in both(cells)],
    "blanks": lambda cells: [f" {name} " for name in symbols(cells)],
    "case of ids": lambda cells: [name.lower() for name in ids(cells)],
}


def both(cells):
    return zip(ids(cells), symbols(cells), strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_genes_under_other_names_are_the_same_tokens(name, cells, rank):
    assert tokenize(renamed(cells, NAMES[name](cells)), rank).fingerprint == tokenize(cells, rank).fingerprint


def test_what_was_taken_off_is_said_and_kept(cells, rank, tmp_path, caplog):
    with caplog.at_level("INFO"):
        store = tokenize(renamed(cells, NAMES["versions"](cells)), rank)
    assert "matched 60 genes of 70 columns by ensembl (index, 100% of what could match)" in caplog.text
    assert "taken off: version (60)" in caplog.text
    store.write(tmp_path)
    assert TokenStore.read(tmp_path).info["gene_names"] == [
        {"names": "id", "taken_off": "version", "matched": False, "columns": 10, "example": "ENSG90000000000.0"},
        {"names": "id", "taken_off": "version", "matched": True, "columns": 60, "example": "ENSG00000000001.0"},
    ]
    mixed = tokenize(renamed(cells, NAMES["half ids, half symbols"](cells)), rank)
    assert "by their own kind, 30 Ensembl ids and 30 symbols" in mixed.info["genes"]


def test_capitals_are_a_human_habit_and_other_cases_are_not(vocabulary):
    frame = vocabulary.genes.copy()
    frame.loc[:9, "symbol"] = [f"C{i}orf{i}" for i in range(10)]
    known = Vocabulary(frame, vocabulary.special, vocabulary.medians)
    upper = pd.DataFrame(index=[name.upper() for name in frame["symbol"]])
    found = match_genes(upper, known)
    assert found.n_genes == 60
    assert "taken off: case (10)" in found.describe()
    title = pd.DataFrame(index=[name.title() for name in frame["symbol"]])
    with pytest.raises(ScircuitError, match="Only 0 genes"):
        match_genes(title, known)


def test_gaps_of_an_id_column_are_filled_from_the_symbols(cells, rank, vocabulary):
    data = renamed(cells, symbols(cells))
    data.var["gene_ids"] = [None if i % 3 == 0 else name for i, name in enumerate(ids(cells))]
    expected = tokenize(cells, rank).fingerprint
    store = tokenize(data, rank)
    assert store.fingerprint == expected
    assert "gap filled (20)" in store.info["genes"]
    data.var["gene_ids"] = ["nan" if i % 3 == 0 else name for i, name in enumerate(ids(cells))]
    assert tokenize(data, rank, gene_column="gene_ids").fingerprint == expected
    # An id that is there says which gene it is, whatever the symbol beside it.
    data.var["gene_ids"] = [f"ENSG9{i:010d}" if i < 5 else name for i, name in enumerate(ids(cells))]
    assert match_genes(data.var, vocabulary, gene_column="gene_ids").n_genes == 55


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_columns_of_one_gene_are_summed_and_counted(cells, rank, vocabulary, caplog):
    names = symbols(cells)
    twice = [names[0] if i == 1 else f"{names[2]}-1" if i == 3 else name for i, name in enumerate(names)]
    with caplog.at_level("INFO"):
        store = tokenize(renamed(cells, twice), rank)
    assert "2 columns repeat a gene and are summed" in caplog.text
    assert store.info["n_columns_summed"] == 2
    summed = sparse.lil_matrix(cells.X)
    for first, second in ((0, 1), (2, 3)):
        summed[:, first] = cells.X[:, first] + cells.X[:, second]
        summed[:, second] = 0
    expected = ad.AnnData(sparse.csr_matrix(summed), obs=cells.obs, var=cells.var)
    assert store.fingerprint == tokenize(expected, rank).fingerprint
    # `-1` is a repeat only beside the name that it repeats.
    alone = [f"{name}-1" if i == 3 else name for i, name in enumerate(names)]
    assert match_genes(pd.DataFrame(index=alone), vocabulary).n_genes == 59


def test_of_a_mixture_of_species_the_human_part_is_taken(cells, rank):
    mouse = ad.AnnData(
        np.full((40, 30), 7.0), obs=cells.obs, var=pd.DataFrame(index=[f"mm10___Gm{i}" for i in range(30)])
    )
    human = renamed(cells, [f"GRCh38_{name}" for name in ids(cells)])
    data = ad.AnnData(
        sparse.hstack([human.X, mouse.X], format="csr"), obs=cells.obs, var=pd.concat([human.var, mouse.var])
    )
    for protocol in ("official", "paper"):
        tokenizer = RankValueTokenizer(rank.vocabulary, 64, protocol)
        store = tokenize(data, tokenizer)
        assert store.fingerprint == tokenize(cells, tokenizer).fingerprint
    assert "30 columns are no genes and left out" in store.info["genes"]
    assert store.info["n_genes_matched"] == 60


def test_below_four_fifths_is_warned_of_and_below_the_least_refused(cells, vocabulary, caplog):
    names = [name if i < 30 else f"LOC{i}" for i, name in enumerate(symbols(cells))]
    with caplog.at_level("WARNING"):
        match_genes(pd.DataFrame(index=names), vocabulary)
    assert "only 50% of the genes that could match did; without a match are such as LOC30" in caplog.text
    with pytest.raises(ScircuitError, match=r"Only 30 genes .* at least 60% is needed"):
        match_genes(pd.DataFrame(index=names), vocabulary, min_rate=0.6)


def test_a_panel_is_told_from_a_whole_transcriptome(cells, rank, vocabulary, caplog):
    with caplog.at_level("WARNING"):
        panel = tokenize(cells[:, :15], rank)
    assert "the data hold 15 genes, a panel or a selection of genes" in caplog.text
    assert panel.info["narrow"].startswith("the data hold 15 genes")
    caplog.clear()
    with caplog.at_level("WARNING"):
        assert tokenize(cells, rank).info["narrow"] is None
    assert not caplog.text
    few = ad.AnnData(sparse.csr_matrix(np.eye(40, 70)), obs=cells.obs, var=cells.var)
    few.X.data[::2] = 3
    with caplog.at_level("WARNING"):
        tokenize(few, rank)
    assert "half of the cells express at most 1 of the model's genes" in caplog.text
