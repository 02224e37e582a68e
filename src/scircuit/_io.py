"""Small files written whole or not at all, and the hashes that name them."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scircuit.errors import ScircuitError


def cache_folder(cache: str | Path | None = None) -> Path:
    """`cache`, else the environment's SCIRCUIT_CACHE, else the user's cache folder."""
    if found := cache or os.environ.get("SCIRCUIT_CACHE"):
        return Path(found)
    import pooch

    return Path(pooch.os_cache("scircuit"))


def within(folder: str | Path, name: Any) -> Path:
    """The path of what a file calls `name` within a folder; refused where it would lead out of it."""
    parts = Path(name).parts if isinstance(name, str) and "\0" not in name else ("..",)
    if ".." in parts or Path(*parts).is_absolute():
        raise ScircuitError(f"{folder} has a record that names {name!r} outside of it; nothing is read from there.")
    return Path(folder, *parts)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; results are shared like any other file the user writes.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically: sorted keys as given, no NaN (it is not JSON)."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or broken one raises `ScircuitError` naming it."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScircuitError(f"{path} does not exist; point to a folder that contains {path.name}.") from None
    except (ValueError, RecursionError, OSError) as error:  # no JSON, no text, nested without end, a folder, not ours
        raise ScircuitError(
            f"{path} is not readable JSON ({error}); the file is truncated or of another kind."
        ) from None


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _bytes_of(array: Any) -> Any:
    """The bytes of an array, in place where they lie in one piece: it may be larger than memory."""
    if array.ndim and array.size and array.dtype.kind in "iuf" and array.flags.c_contiguous:
        return memoryview(array).cast("B")
    return array.tobytes()


def sha256_of(*parts: Any) -> str:
    """Hex sha256 of JSON-able values, bytes or numpy arrays, in order; keys are sorted."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            data: tuple[Any, ...] = (part,)
        elif hasattr(part, "tobytes"):
            data = f"{part.dtype}{part.shape}".encode(), _bytes_of(part)
        else:
            data = (json.dumps(part, sort_keys=True, allow_nan=False).encode(),)
        digest.update(sum(map(len, data)).to_bytes(8, "little"))
        for piece in data:
            digest.update(piece)
    return digest.hexdigest()
