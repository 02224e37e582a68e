import gzip
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scircuit.errors import ScircuitError
from scircuit.knowledge.genes import GeneNames
from scircuit.knowledge.gmt import GeneSets, packaged_programs, read_gmt, readable

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="real data sets are not beside the project")


def read(tmp_path, text: str | bytes, **options) -> GeneSets:
    path = tmp_path / "lib.gmt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_gmt(path, **options)


@pytest.mark.parametrize(
    ("text", "genes"),
    [
        ("a\tabout\tX\tY\n", {"a": ("X", "Y")}),
        ("a\t\tX\tY\t\t \n\nb\t\tZ", {"a": ("X", "Y"), "b": ("Z",)}),
        ("a\t\t X \tY\r\nb\t\tZ\r\n", {"a": ("X", "Y"), "b": ("Z",)}),
        ("a\t\tX,1.0\tY,0.25\tZ,-3e-2\n", {"a": ("X", "Y", "Z")}),
        ("a\t\tX\tY\tX\n", {"a": ("X", "Y")}),
        ("a\td\tX\na\td\tX\n", {"a": ("X",)}),
        ("a\tup\tX\na\tdown\tY\na\tdown\tY\n", {"a": ("X",), "a (down)": ("Y",)}),
        ("\ufeffa\t\tX\n", {"a": ("X",)}),
        ("a\t\tcomplete genome, part\tY\n", {"a": ("complete genome, part", "Y")}),
    ],
)
def test_what_is_read(tmp_path, text, genes):
    assert read(tmp_path, text).genes == genes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no gene set"),
        ("\n \t \n", "holds no gene set"),
        ("a\t\tX\nno tab here\n", "line 2 has no tab"),
        ("a\t\tX\nb\tabout\t \t\n", "line 2: the set 'b' has no gene"),
        ("a\t\tX\n\n\tabout\tX\n", "line 3 has no term"),
        ("a\t\tX\nb\t\tX\na\t\tY\n", "line 3: the set 'a' is already defined on line 1"),
        (b"\xff\xfe\x00\x01", "is not a text file"),
        (gzip.compress(b"a\t\tX\n", mtime=0)[:-9], "is not a text file"),
        ("a\tX\tY\nb\tY\tX\nc\tZ\tY\n", "pass description=False"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(ScircuitError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ScircuitError, match=r"nothing\.gmt does not exist"):
        read_gmt(tmp_path / "nothing.gmt")


def test_without_description_column(tmp_path):
    sets = read(tmp_path, "a\tX\tY\nb\tY\tX\n", description=False)
    assert sets.genes == {"a": ("X", "Y"), "b": ("Y", "X")}
    assert sets.descriptions == {"a": "", "b": ""}


def test_gzipped_is_the_same(tmp_path):
    content = b"a\tabout\tX\tY\n"
    assert read(tmp_path, gzip.compress(content)).genes == read(tmp_path, content).genes


names = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), min_size=1, max_size=8).filter(
    lambda s: s == s.strip() and s and "," not in s and not s.startswith("\ufeff")
)


@given(st.dictionaries(names, st.lists(names, min_size=1, max_size=6, unique=True), min_size=1, max_size=8))
def test_written_and_read_back(tmp_path_factory, genes):
    sets = GeneSets.from_dict("lib", genes)
    path = tmp_path_factory.mktemp("gmt") / "lib.gmt"
    lines = ["\t".join((term, "", *members)) for term, members in sets.genes.items()]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    again = read_gmt(path, description=True)
    assert again.genes == sets.genes
    assert again.sha256 == sets.sha256


def test_the_packaged_programs():
    programs = packaged_programs()
    assert 50 <= len(programs) <= 80
    for term, genes in programs.genes.items():
        assert 10 <= len(genes) <= 60, term
        author, year = programs.descriptions[term].split()[0], programs.descriptions[term].split()[-1]
        assert author[0].isupper(), term
        assert 1980 <= int(year) <= 2026, term


@needs_data
def test_program_symbols_are_real_and_immune_ones_are_in_blood():
    from anndata import read_h5ad

    from scircuit.cells.pickles import read_plain_pickle

    known = read_plain_pickle(SHARED / "tokenizers" / "geneformer_gene_name_id_dict_gc104M.pkl")
    programs = packaged_programs()
    assert sorted(programs.universe - set(known)) == []
    var = read_h5ad(SHARED / "scrna" / "pbmc3k_counts.h5ad", backed="r").var
    names = GeneNames(pd.DataFrame({"symbol": var.index, "ensembl_id": var["ensembl_id"]}))
    for term in ("B cell", "T cell", "Natural killer cell", "Classical monocyte", "Platelet and megakaryocyte"):
        found = names.resolve(programs.genes[term]).row >= 0
        assert found.mean() > 0.85, term


@needs_data
@pytest.mark.parametrize(
    ("file", "n_sets"),
    [
        ("genesets/enrichr.GO_Biological_Process_2021.gmt", 6036),
        ("genesets/ReactomePathways.gmt", 2546),
        ("genesets/msigdb_hallmark_v2025.gmt", 50),
        ("genesets/PanglaoDB_markers_27_Mar_2020.gmt", 178),
        ("networks/encode_tf_chipseq_2015_K562.gmt.gz", 116),
        ("disease/enrichr.GWAS_Catalog_2019.txt.gz", 1737),
        ("perturb/replogle_k562_crispri_up.gmt.gz", 1170),
    ],
)
def test_real_libraries(file, n_sets):
    assert len(read_gmt(SHARED / file)) == n_sets


@pytest.mark.parametrize(
    ("field", "gene"),
    [("A,1.0", "A"), ("A,B,.5e-3", "A,B"), ("A , +2.", "A"), ("A,", "A,"), (",1", ",1"), ("A,1.2.3", "A,1.2.3"),
     ("A,1e", "A,1e"), ("A,-", "A,-")],
)  # fmt: skip
def test_weights_are_cut_off(tmp_path, field, gene):
    (tmp_path / "x.gmt").write_text(f"t\t\t{field}\n")
    assert read_gmt(tmp_path / "x.gmt").genes == {"t": (gene,)}


@pytest.mark.parametrize(
    ("term", "name"),
    [("a (GO:1)", "a"), ("a (b) (R-HSA-12) ", "a (b)"), ("a (GO:1) b", "a (GO:1) b"), ("a (x)", "a (x)"), ("a", "a")],
)
def test_accessions_are_cut_off(term, name):
    assert readable(term) == name


@pytest.mark.parametrize("piece", ["1", ",1", " ", "1.", ",", "(GO:1", "\xa0", "e1"])
def test_fields_are_read_in_one_pass(tmp_path, piece):
    """A field of 10,000 digits once took a minute."""
    field = "x" + piece * 200_000 + "x"
    (tmp_path / "x.gmt").write_text(f"{field}\t\t{field}\n")
    start = time.perf_counter()
    assert read_gmt(tmp_path / "x.gmt").genes == {field: (field,)}
    assert readable(field) == field
    assert time.perf_counter() - start < 5
