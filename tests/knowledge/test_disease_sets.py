from pathlib import Path

import pytest

from scircuit.errors import ScircuitError
from scircuit.knowledge.disease import read_clingen, read_gwas, read_intogen, read_open_targets

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "disease"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="real data sets are not beside the project")

CLINGEN = (
    "\tgene_name\tdisease_label\tclassification\n0\t++++\t++++\t++++\n1\tA\td1\tDefinitive\n2\tA\td1\tDefinitive\n"
    "3\tB\td1\tModerate\n4\tC\td1\tLimited\n5\tC\td2\tRefuted\n6\tD\td2\tStrong\n"
)


def test_clingen_keeps_the_valid(tmp_path):
    path = tmp_path / "clingen.tsv"
    path.write_text(CLINGEN)
    found = read_clingen(path)
    assert list(zip(found.table["gene"], found.table["disease"], strict=True)) == [
        ("A", "d1"),
        ("B", "d1"),
        ("D", "d2"),
    ]
    assert found.genes == {"A", "B", "D"}
    assert found.sets(min_genes=2).genes == {"d1": ("A", "B")}
    assert read_clingen(path, levels=("Limited",)).genes == {"C"}
    with pytest.raises(ScircuitError, match="no classification 'Sure'; it has Definitive, Limited"):
        read_clingen(path, levels=("Sure",))
    with pytest.raises(ScircuitError, match="No disease of ClinGen has 9 genes"):
        found.sets(min_genes=9)


def test_open_targets_threshold(tmp_path):
    path = tmp_path / "ot.csv"
    path.write_text("gene_symbol,disease_name,association_score\nA,d,0.9\nB,d,0.05\n")
    assert read_open_targets(path).genes == {"A"}
    assert read_open_targets(path, min_score=0).genes == {"A", "B"}
    with pytest.raises(ScircuitError, match="run from 0 to 1"):
        read_open_targets(path, min_score=70)


@needs_data
def test_real_files():
    clingen = read_clingen(SHARED / "clingen_formatted_2025-01.txt.gz")
    assert not any(g.startswith("+") for g in clingen.genes)
    assert {"BRCA1", "MYBPC3"} <= clingen.genes
    intogen = read_intogen(SHARED / "intogen_Compendium_Cancer_Genes_2023.tsv.gz")
    assert len(intogen.genes) == 619
    targets = read_open_targets(SHARED / "opentargets_immune_disease_gene_associations.csv.gz")
    assert "NOD2" in set(targets.table.query('disease == "Crohn\'s disease"')["gene"])
    assert len(read_gwas(SHARED / "enrichr.GWAS_Catalog_2019.txt.gz").sets(min_genes=1)) == 1737


def test_clingen_in_its_official_form(tmp_path):
    path = tmp_path / "gene-validity.csv"
    path.write_text(
        '"CLINGEN GENE DISEASE VALIDITY CURATIONS","","",""\n"FILE CREATED: 2025-01-01","","",""\n'
        '"+++","+++","+++","+++"\n"GENE SYMBOL","GENE ID (HGNC)","DISEASE LABEL","CLASSIFICATION"\n'
        '"+++","+++","+++","+++"\n"A2ML1","HGNC:23336","Noonan syndrome","Disputed"\n'
        '"AARS1","HGNC:20","Charcot-Marie-Tooth","Definitive"\n"B","HGNC:1","d","Strong"\n"C","HGNC:2","d","Moderate"\n'
    )
    assert read_clingen(path).genes == {"AARS1", "B", "C"}
