"""Text files, packed or not, read no further than an honest file of their size can go."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import pandas as pd

from scircuit.errors import ScircuitError

_MOST_TIMES = 200
"""Text packs 3 to 20 times; a file made to fill the memory packs a thousand times and more."""
_ALWAYS = 1 << 24
"""Bytes that any file may unpack to."""
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04")
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)
"""What the unpackers raise on damage, a password, or a method that they do not know."""


def most_bytes(path: Path) -> int:
    """How many bytes of text a file may hold: its size, or if packed a multiple of it."""
    with open(path, "rb") as file:
        packed = file.read(6).startswith(_PACKED)
    size = path.stat().st_size
    return max(_MOST_TIMES * size, _ALWAYS) if packed else size


def open_packed(path: str | Path) -> BinaryIO:
    """A file's text as bytes: plain, or unpacked from gzip, bzip2, xz or a zip archive of one file.

    Raises
    ------
    ScircuitError
        While it is read: when it is damaged, or unpacks to more than such a file may.
    """
    path = Path(path)
    return cast(BinaryIO, io.BufferedReader(_Bounded(path, lambda: _unpacker(path)), 1 << 16))


def read_delimited(path: str | Path, **options: Any) -> pd.DataFrame:
    """`pandas.read_csv` of a file that may be packed; one that is no table is told in a sentence."""
    try:
        with open_packed(path) as file:
            return pd.read_csv(file, **options)
    except ScircuitError:
        raise
    except (ValueError, OSError) as error:  # pandas' own errors, and text that is none, are ValueErrors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScircuitError(f"{path} cannot be read as a table ({reason}); download it again.") from None


def unpack_member(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Write one file of a zip archive to `target`, in blocks; see `open_packed`."""
    path = Path(str(archive.filename))
    with _Bounded(path, lambda: archive.open(name)) as source, open(target, "wb") as file:
        while block := source.read(1 << 20):
            file.write(block)


class _Bounded(io.RawIOBase):
    """A stream that ends in a sentence where it is damaged, or goes on for longer than its file may."""

    _stream: Any = None

    def __init__(self, path: Path, open_stream: Callable[[], Any]) -> None:
        self._path = path
        self._left = self._told(lambda: most_bytes(path))
        self._stream = self._told(open_stream)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of any raw stream."""
        block = self._told(lambda: self._stream.read(len(buffer)))
        self._left -= len(block)
        if self._left < 0:
            raise ScircuitError(
                f"{self._path} unpacks to more than {_MOST_TIMES} times its size, which no table does; unpack it "
                "yourself if you trust it."
            )
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        """Close what is read as well."""
        if self._stream is not None:
            self._stream.close()
        super().close()

    def _told(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except _DAMAGE as error:
            raise ScircuitError(
                f"{self._path} is not a text file, or is packed and damaged ({error}); copy it again."
            ) from None


def _unpacker(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(6)
    openers: tuple[Callable[[Path], Any], ...] = (gzip.open, bz2.open, lzma.open, _only_member)
    for magic, opener in zip(_PACKED, openers, strict=True):
        if start.startswith(magic):
            return opener(path)
    return open(path, "rb")


def _only_member(path: Path) -> Any:
    archive = zipfile.ZipFile(path)
    names = archive.namelist()
    if len(names) != 1:
        raise zipfile.BadZipFile(f"it holds {len(names)} files, not one")
    return archive.open(names[0])
