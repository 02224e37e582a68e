"""Arrays longer than memory: grown on disk, written as safetensors and read by mapping the file."""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scircuit.errors import ScircuitError

_IN_MEMORY = 1 << 27
"""Bytes of one array that are kept in memory before it goes on on disk."""
_KINDS = {"<i8": "I64", "<i4": "I32", "|i1": "I8", "<f4": "F32"}
_DTYPES = {short: np.dtype(long) for long, short in _KINDS.items()}


class Growing:
    """A one-dimensional array to whose end arrays are added."""

    def __init__(self, dtype: Any) -> None:
        self._dtype = np.dtype(dtype)
        self._parts: list[np.ndarray] = []
        self._held = 0
        self._file: Any = None

    def add(self, values: np.ndarray) -> None:
        """Add to the end; what is held goes to disk when it grows large."""
        self._parts.append(np.ascontiguousarray(values, dtype=self._dtype))
        self._held += values.nbytes
        if self._held > _IN_MEMORY:
            self._spill()

    def array(self) -> np.ndarray:
        """All of it, in memory, or mapped from a file that goes with the array; nothing is added any more."""
        if self._file is None:
            return np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=self._dtype)
        self._spill()
        with self._file:
            return np.asarray(np.memmap(self._file, dtype=self._dtype, mode="c"))

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  (until it is mapped)
        for part in self._parts:
            part.tofile(self._file)
        self._file.flush()
        self._parts, self._held = [], 0


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file, array by array, without a copy of any in memory."""
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header: dict[str, Any] = {}
    at = 0
    for name, array in ordered:
        header[name] = {
            "dtype": _KINDS[array.dtype.str], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes],
        }  # fmt: skip
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            array.tofile(file)


def map_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, mapped: a page is read when it is touched, and changes stay in memory.

    Raises
    ------
    ScircuitError
        When the file is missing or cut off.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        return {name: _map(path, about, 8 + length) for name, about in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError) as error:
        raise ScircuitError(f"{path} cannot be read ({error}); tokenize again.") from None


def _map(path: Path, about: Mapping[str, Any], start: int) -> np.ndarray:
    """One array of the file, held to the bytes that its header says it has."""
    kind, shape = _DTYPES[about["dtype"]], tuple(about["shape"])
    begin, end = about["data_offsets"]
    if math.prod(shape) * kind.itemsize != end - begin or min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape} does not lie in {end - begin} bytes")
    return np.asarray(np.memmap(path, kind, "c", start + begin, shape)) if end > begin else np.zeros(shape, dtype=kind)
