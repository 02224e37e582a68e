"""Packed files: every packing is read, a bomb takes no memory, damage is one sentence."""

import bz2
import gzip
import io
import lzma
import tracemalloc
import zipfile

import pandas as pd
import pytest

from scircuit._packed import open_packed, read_delimited, unpack_member
from scircuit.cells.tenx import open_mtx_folder
from scircuit.errors import ScircuitError
from scircuit.knowledge.gmt import read_gmt
from scircuit.knowledge.tables import read_table

TEXT = b"a\tb\n1\t2\n"


def zipped(*contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, content in enumerate(contents):
            archive.writestr(f"{i}.tsv", content)
    return buffer.getvalue()


PACKINGS = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zip": zipped}


@pytest.mark.parametrize("pack", PACKINGS.values(), ids=PACKINGS)
def test_every_packing_is_read(tmp_path, pack):
    path = tmp_path / "table.tsv"
    path.write_bytes(pack(TEXT))
    with open_packed(path) as file:
        assert file.read() == TEXT
    pd.testing.assert_frame_equal(read_delimited(path, sep="\t"), pd.DataFrame({"a": [1], "b": [2]}))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zipped])
@pytest.mark.parametrize("read", [read_gmt, lambda path: read_table(path, ["a"], sep="\t")], ids=["gmt", "table"])
def test_a_bomb_takes_no_memory(tmp_path, pack, read):
    path = tmp_path / "bomb.gmt"
    path.write_bytes(pack(b"a\tb\tc\n" + bytes(1 << 25)))
    assert path.stat().st_size < 1 << 18
    tracemalloc.start()
    with pytest.raises(ScircuitError, match=r"bomb\.gmt unpacks to more than 200 times its size"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()


def test_a_member_of_an_archive_is_bounded_too(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped(bytes(1 << 25), TEXT))
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        unpack_member(archive, "1.tsv", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == TEXT
        with pytest.raises(ScircuitError, match="unpacks to more"):
            unpack_member(archive, "0.tsv", tmp_path / "out")
    with pytest.raises(ScircuitError, match="holds 2 files, not one"):
        open_packed(tmp_path / "x.zip")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zipped])
def test_damage_is_one_sentence(tmp_path, pack):
    path = tmp_path / "damaged.gmt"
    whole = pack(b"".join(b"term%d\t\tG%d\n" % (i, i * 7919) for i in range(300)))
    told = []
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] if at % 2 else whole[:at])
        for read in (read_gmt, lambda p: read_table(p, [0], sep="\t", header=None)):
            try:
                read(path)
            except ScircuitError as error:
                told.append(str(error))
    assert len(told) > len(whole) / 10
    assert all(str(path) in sentence for sentence in told)


def test_a_matrix_asks_for_no_more_than_its_file_holds(tmp_path):
    head = b"%%MatrixMarket matrix coordinate integer general\n"
    (tmp_path / "genes.tsv").write_bytes(b"ENSG1\tA\n")
    (tmp_path / "barcodes.tsv").write_bytes(b"c1\n")
    for text, says in [
        (b"1 1 9000000000000\n1 1 1\n", "cannot hold the 9,000,000,000,000 entries"),
        (b"1 1\n", "is damaged"),
        (b"1 1 1\n1 1 \xff\n", "is damaged"),
    ]:
        for pack, name in ((bytes, "matrix.mtx"), (gzip.compress, "matrix.mtx.gz")):
            (tmp_path / name).write_bytes(pack(head + text))
            with pytest.raises(ScircuitError, match=says):
                open_mtx_folder(tmp_path)
            (tmp_path / name).unlink()
