"""What the cache knows of a source, in its `source.json`; and what a name is, and what a path."""

from pathlib import Path
from typing import Any

from scircuit._io import read_json, within, write_json
from scircuit.errors import ScircuitError
from scircuit.knowledge.sources import READERS, Remote, Source

RECORD = "source.json"
_TOLD = ("name", "title", "version", "licence", "reader", "note")
_OF_FILE = ("url", "file", "sha256")
_ENDINGS = (".gmt", ".csv", ".tsv", ".txt")


def is_name(text: str) -> bool:
    """Whether a text can name a source: letters, digits, - and _ alone, so that it leads nowhere."""
    return text.replace("_", "").replace("-", "").isalnum()


def is_path(text: str) -> bool:
    """Whether a text is the path of a file, there or not, and no name of a source."""
    return Path(text).is_file() or "/" in text or text.removesuffix(".gz").endswith(_ENDINGS)


def to_record(source: Source) -> dict[str, Any]:
    """What is kept of a source."""
    files = [{key: getattr(remote, key) for key in _OF_FILE} for remote in source.files]
    return {**{key: getattr(source, key) for key in _TOLD}, "files": files}


def write_record(folder: Path, source: Source) -> None:
    """Write `source.json`, which makes the folder a source of the cache."""
    write_json(folder / RECORD, {"format_version": 1, **to_record(source)})


def read_record(folder: Path) -> Source:
    """A source of the cache as it was recorded; refused where the record is damaged or names files elsewhere."""
    content = read_json(folder / RECORD)
    whole = _are_texts(content, _TOLD) and content["reader"] in READERS
    files = content.get("files") if whole else None
    if not isinstance(files, list) or not files or not all(_are_texts(file, _OF_FILE) for file in files):
        raise ScircuitError(f"{folder / RECORD} is damaged; delete {folder}, and fetch or add {folder.name} again.")
    for file in files:
        within(folder, file["file"])
    remotes = tuple(Remote(**{key: file[key] for key in _OF_FILE}) for file in files)
    return Source(**{key: content[key] for key in _TOLD}, files=remotes)


def _are_texts(content: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), str) for key in keys)
