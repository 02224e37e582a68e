"""Artefacts that prove themselves: their JSON lists its files by size and sha256, and reading holds them to it."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from scircuit._io import read_json, sha256_file, write_json
from scircuit.errors import ScircuitError

FILES = "files"


def write_sealed(record: str | Path, content: Mapping[str, Any], names: Iterable[str]) -> None:
    """Write the JSON that completes an artefact, with the files `names` beside it, which are all written by now."""
    record = Path(record)
    found = [record.parent / name for name in names]
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in found if file.is_file()}
    write_json(record, {**content, FILES: files})


def seal(table: Path) -> None:
    """List a table that is nobody else's in a JSON of its own name."""
    write_sealed(table.with_suffix(".json"), {"format_version": 1}, [table.name])


def sealed(record: Path) -> dict[str, dict[str, Any]]:
    """The files that a record lists; none for a JSON of another kind, or of a build that listed none."""
    content = read_json(record)
    files = content.get(FILES) if isinstance(content, dict) else None
    if not isinstance(files, dict):
        return {}
    return {name: f for name, f in files.items() if isinstance(f, dict) and {"bytes", "sha256"} <= f.keys()}


def check(path: str | Path) -> None:
    """Refuse a file that is not the one which a record beside it lists; what no record lists is taken as it is.

    A file is hashed once in a process, and again when its size or its time has changed.
    """
    path = Path(path)
    if not path.is_file():
        return
    for record in _records(path):
        stat = record.stat()
        listed = _sealed_once(record, stat.st_size, stat.st_mtime_ns).get(path.name)
        if listed is not None:
            if not is_as_listed(path, listed):
                raise ScircuitError(
                    f"{path} is not the file that {record.name} beside it lists: it was damaged or changed, or is of "
                    f"another run; copy it again, or delete {record} and make {path.parent.name} anew."
                )
            return


def is_as_listed(path: Path, listed: Mapping[str, Any]) -> bool:
    """Whether a file has the size and the hash that a record lists."""
    stat = path.stat()
    return stat.st_size == listed["bytes"] and _hash_once(path, stat.st_size, stat.st_mtime_ns) == listed["sha256"]


def _records(path: Path) -> Iterator[Path]:
    own = path.with_suffix(".json")
    if own.is_file():
        yield own
    yield from (record for record in sorted(path.parent.glob("*.json")) if record != own)


@lru_cache(maxsize=256)
def _sealed_once(record: Path, size: int, mtime_ns: int) -> dict[str, dict[str, Any]]:
    return sealed(record)


@lru_cache(maxsize=1024)
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)
