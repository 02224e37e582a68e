from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scircuit.errors import ScircuitError
from scircuit.knowledge.genes import GeneNames
from scircuit.knowledge.networks import (
    read_chipseq,
    read_collectri,
    read_dorothea,
    read_string,
    read_trrust,
    regulons,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "networks"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="real data sets are not beside the project")


def write(tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text)
    return path


def edges(network):
    return {(r.source, r.target): (r.sign, r.score) for r in network.edges.itertuples()}


STRING = "gene_a\tgene_b\tcombined_score\nB\tA\t900\nA\tB\t950\nA\tC\t650\nC\tC\t999\nC\tD\t700\n"


def test_string(tmp_path):
    path = write(tmp_path, STRING)
    assert edges(read_string(path)) == {("A", "B"): (0, 950), ("C", "D"): (0, 700)}
    assert ("A", "C") in edges(read_string(path, min_score=600))
    with pytest.raises(ScircuitError, match=r"min_score=0\.7 is no STRING score; they run from 0 to 1000"):
        read_string(path, min_score=0.7)
    with pytest.raises(ScircuitError, match="leaves no edge of STRING"):
        read_string(path, min_score=1000)
    with pytest.raises(ScircuitError, match="multiply them by 1000"):
        read_string(write(tmp_path, "gene_a\tgene_b\tcombined_score\nA\tB\t0.9\n"))


def test_string_in_its_official_form(tmp_path):
    info = tmp_path / "info.txt"
    info.write_text("#string_protein_id\tpreferred_name\n9606.P1\tA\n9606.P2\tB\n")
    links = write(tmp_path, "protein1 protein2 combined_score\n9606.P2 9606.P1 800\n9606.P1 9606.P9 900\n")
    assert edges(read_string(links, info=info)) == {("A", "B"): (0, 800)}


def test_trrust_signs_that_contradict_are_no_sign(tmp_path):
    modes = [("X", "Activation"), ("Y", "Repression"), ("Z", "Activation"), ("Z", "Repression"), ("X", "Unknown")]
    text = "".join(f"MYC\t{target}\t{mode}\t1\n" for target, mode in modes)
    network = read_trrust(write(tmp_path, text))
    assert {k: s for k, (s, _) in edges(network).items()} == {("MYC", "X"): 1, ("MYC", "Y"): -1, ("MYC", "Z"): 0}
    assert network.directed
    with pytest.raises(ScircuitError, match="mode 'Guess' in its third column"):
        read_trrust(write(tmp_path, "MYC\tX\tGuess\t1\n"))


def test_regulons_by_sign(tmp_path):
    text = "source,target,weight\n" + "".join(f"T,A{i},1\n" for i in range(5)) + "T,R0,-1\n" + "U,A0,1\nU,A1,1\n"
    sets = regulons(read_collectri(write(tmp_path, text)), min_targets=2)
    assert set(sets.genes) == {"T activates", "T regulates", "U activates"}
    assert set(sets.genes["T regulates"]) == {"R0", *(f"A{i}" for i in range(5))}
    undirected = read_string(write(tmp_path, STRING))
    with pytest.raises(ScircuitError, match="STRING is undirected and has no regulators"):
        regulons(undirected)


def test_dorothea_levels(tmp_path):
    path = write(tmp_path, "source,confidence,target,weight\nM,A,X,1.0\nM,D,Y,-0.3\n")
    assert set(edges(read_dorothea(path))) == {("M", "X")}
    assert edges(read_dorothea(path, levels=("D",))) == {("M", "Y"): (-1, 0.3)}
    with pytest.raises(ScircuitError, match="no confidence level 'F'; levels are A, B, C, D, E"):
        read_dorothea(path, levels=("F",))


def test_chipseq(tmp_path):
    network = read_chipseq(write(tmp_path, "GATA1_K562_HG19\t\tX\tY\nGATA1_GM_HG19\t\tX\n"))
    assert set(edges(network)) == {("GATA1", "X"), ("GATA1", "Y")}


def test_adjacency(tmp_path):
    names = GeneNames(pd.DataFrame({"symbol": ["A", "B", "C", "D"], "ensembl_id": ""}))
    got = read_string(write(tmp_path, STRING), min_score=600).adjacency(names).toarray()
    expected = np.zeros((4, 4), bool)
    for a, b in [(0, 1), (0, 2), (2, 3)]:
        expected[a, b] = expected[b, a] = True
    assert (got == expected).all()


@pytest.mark.parametrize("reader", [read_string, read_collectri, read_dorothea])
def test_a_wrong_file_is_named(tmp_path, reader):
    with pytest.raises(ScircuitError, match="has no column"):
        reader(write(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(ScircuitError, match="cannot be read as a table"):
        reader(write(tmp_path, ""))
    with pytest.raises(ScircuitError, match="does not exist"):
        reader(tmp_path / "nothing.csv")


@needs_data
def test_real_files():
    string = read_string(SHARED / "string_v12_ntm_700_symbols.tsv.gz")
    assert string.edges["score"].min() >= 700
    assert len(string) == 131_520
    trrust = read_trrust(SHARED / "trrust_rawdata.human.tsv")
    raw = pd.read_csv(SHARED / "trrust_rawdata.human.tsv", sep="\t", header=None)
    assert (len(raw), raw[0].nunique()) == (9396, 795)
    assert set(edges(trrust)) == {(a, b) for a, b in zip(raw[0], raw[1], strict=True) if a != b}
    collectri = read_collectri(SHARED / "collectri.csv.gz")
    assert set(collectri.edges["sign"]) == {-1, 1}
    assert len(read_chipseq(SHARED / "encode_tf_chipseq_2015_K562.gmt.gz")) > 200_000
