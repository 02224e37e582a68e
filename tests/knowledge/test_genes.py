import pandas as pd
import pytest

from scircuit.errors import ScircuitError
from scircuit.knowledge.genes import GeneNames, packaged_aliases, read_hgnc, strip_version

TABLE = pd.DataFrame(
    {
        "symbol": ["CD3D", "RACK1", "SDPR", "TWIN", "TWIN", "C1orf43", "OLDNAME"],
        "ensembl_id": ["ENSG00000000001", "ENSG00000204628", "ENSG00000168497", "ENSG00000000004", "ENSG00000000005",
                       "ENSG00000000006", ""],
    }
)  # fmt: skip
ALIASES = pd.DataFrame(
    {
        "alias": ["GNB2L1", "SDPR", "BOTH", "BOTH", "OLDNAME", "CD3D"],
        "symbol": ["RACK1", "CAVIN2", "CD3D", "RACK1", "NEWNAME", "SOMETHING"],
        "ensembl_id": ["ENSG00000204628", "ENSG00000168497", "ENSG00000000001", "ENSG00000204628", "", ""],
    }
)


@pytest.fixture(scope="module")
def names():
    return GeneNames(TABLE, ALIASES)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("CD3D", 0),  # the table's own symbol wins over any alias of that name
        ("ENSG00000000001", 0),
        ("ENSG00000000001.12", 0),
        ("ENSG00000000006", 5),
        ("GNB2L1", 1),  # former symbol, table has today's
        ("CAVIN2", 2),  # today's symbol, table has the former
        ("NEWNAME", 6),  # the same without Ensembl ids
        ("C1ORF43", 5),  # as Enrichr writes it
        ("cd3d", -1),
        ("NOPE", -1),
        ("", -1),
    ],
)
def test_names(names, name, row):
    assert names.resolve([name]).row.tolist() == [row]


def test_ambiguous_names_are_reported_and_never_guessed(names):
    result = names.resolve(["TWIN", "BOTH", "CD3D", "TWIN", "NOPE"])
    assert result.row.tolist() == [-1, -1, 0, -1, -1]
    assert result.ambiguous == {"TWIN": (3, 4), "BOTH": (0, 1)}
    assert result.unknown == ("NOPE",)
    assert "1 of 5 names resolved" in result.describe()
    assert "2 ambiguous (BOTH, TWIN)" in result.describe()


def test_found_through_an_alias_is_told(names):
    assert names.resolve(["GNB2L1", "RACK1"]).by_alias == {"GNB2L1": 1}


def test_strip_version():
    assert strip_version("ENSG00000123456.12") == "ENSG00000123456"
    assert strip_version("ENSMUSG00000123456.1") == "ENSMUSG00000123456"
    assert strip_version("RP11-34P13.7") == "RP11-34P13.7"


def test_packaged_table_is_sound():
    table = packaged_aliases()
    assert len(table) > 1000
    assert table["ensembl_id"].str.fullmatch(r"ENSG\d{11}").all()
    assert not (table["alias"] == table["symbol"]).any()
    assert not set(table["alias"]) & set(table["symbol"])
    assert dict(zip(table["alias"], table["symbol"], strict=True))["IL8"] == "CXCL8"


def test_a_table_without_ids_is_refused():
    with pytest.raises(ScircuitError, match="gene table has no column 'ensembl_id'"):
        GeneNames(pd.DataFrame({"symbol": ["A"]}))


def test_hgnc_table(tmp_path):
    path = tmp_path / "hgnc.txt"
    path.write_text(
        "symbol\talias_symbol\tprev_symbol\tensembl_gene_id\n"
        "RACK1\tGnb2-rs1|H12.3\tGNB2L1\tENSG00000204628\nCD3D\t\t\tENSG00000000001\n"
    )
    aliases = read_hgnc(path)
    assert aliases["alias"].tolist() == ["Gnb2-rs1", "H12.3", "GNB2L1"]
    assert GeneNames(TABLE, aliases).resolve(["H12.3", "GNB2L1"]).row.tolist() == [1, 1]
