"""Arrays longer than memory: the same numbers as in memory, the same file as safetensors writes."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from scircuit.cells import growing
from scircuit.cells.binning import BinningTokenizer
from scircuit.cells.growing import Growing, map_arrays, write_arrays
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.errors import ScircuitError


def test_what_went_to_disk_is_the_same(monkeypatch):
    parts = [np.arange(i, dtype=np.int64) for i in (3, 0, 50, 7, 200)]
    monkeypatch.setattr(growing, "_IN_MEMORY", 256)
    array = Growing(np.int32)
    for part in parts:
        array.add(part)
    whole = array.array()
    assert whole.dtype == np.int32
    assert whole.tolist() == np.concatenate(parts).tolist()
    assert Growing(np.int8).array().shape == (0,)


def test_the_file_is_safetensors(tmp_path):
    arrays = {
        "tokens": np.arange(7), "gene": np.arange(7, dtype=np.int32), "role": np.ones(7, np.int8),
        "values": np.zeros(0, np.float32), "offsets": np.array([0, 3, 7]),
    }  # fmt: skip
    write_arrays(tmp_path / "ours", arrays)
    save_file(arrays, tmp_path / "theirs")
    for read in (load_file(tmp_path / "ours"), map_arrays(tmp_path / "ours"), map_arrays(tmp_path / "theirs")):
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)
            assert read[name].dtype == array.dtype
    (tmp_path / "ours").write_bytes((tmp_path / "ours").read_bytes()[:-20])
    with pytest.raises(ScircuitError, match="cannot be read"):
        map_arrays(tmp_path / "ours")


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 0]},
        {"dtype": "I64", "shape": [1 << 40], "data_offsets": [0, 1 << 43]},
        {"dtype": "I8", "shape": [-1], "data_offsets": [0, -1]},
        None,
    ],
)
def test_a_header_is_held_to_its_file(tmp_path, about):
    text = json.dumps({"tokens": about}).encode()
    length = len(text) if about else 1 << 62
    (tmp_path / "file").write_bytes(length.to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(ScircuitError, match="cannot be read"):
        map_arrays(tmp_path / "file")


def test_a_store_beyond_memory_is_the_store(cells, vocabulary, tmp_path, monkeypatch):
    tokenizer = BinningTokenizer(vocabulary, 30)
    expected = tokenize(cells, tokenizer)
    monkeypatch.setattr(growing, "_IN_MEMORY", 500)
    store = tokenize(cells, tokenizer)
    store.write(tmp_path)
    for one in (store, TokenStore.read(tmp_path)):
        assert one.fingerprint == expected.fingerprint
        assert one.subset(np.array([5, 2])).fingerprint == expected.subset(np.array([5, 2])).fingerprint
        np.testing.assert_array_equal(one.batch(np.arange(40)).values, expected.batch(np.arange(40)).values)
