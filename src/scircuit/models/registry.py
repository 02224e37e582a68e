"""Known checkpoints as data: where their files lie, how large they are, and what their bytes hash to."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from scircuit.errors import ScircuitError


@dataclass(frozen=True)
class RemoteFile:
    """One published file."""

    path: str
    """Path in the repository, or the file's name where there is no repository."""
    bytes: int | None = None
    """Its size; None where it is not known."""
    sha256: str | None = None
    """Its hash; None where it is not known: then what was read is recorded and nothing can be compared."""

    @property
    def name(self) -> str:
        """Its name in a local folder."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Dictionaries:
    """Geneformer's token dictionaries of one series."""

    series: str
    title: str
    repo: str
    revision: str
    licence: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True)
class Shape:
    """Everything of a model that decides what it costs; `kind` is `geneformer` or `scgpt`, which adapter reads it."""

    kind: str
    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    n_tokens: int
    max_length: int


@dataclass(frozen=True)
class Checkpoint(Shape):
    """A published model and its shape, for estimates before it is there."""

    name: str
    title: str
    paper: str
    licence: str
    files: tuple[RemoteFile, ...]
    """Configuration and weights (paths within `subfolder`)."""
    n_parameters: int
    repo: str = ""
    """On the Hugging Face hub, pinned to `revision`; empty where the authors keep none."""
    revision: str = ""
    subfolder: str = ""
    address: str = ""
    """Where a person downloads it when there is no `repo`."""
    dictionaries: Dictionaries | None = None
    """What turns genes into tokens, where it is kept apart from the weights."""
    aliases: tuple[str, ...] = ()
    """Other names that are understood, lower case."""

    @property
    def needed(self) -> tuple[RemoteFile, ...]:
        """Every file of the repository that the model needs, dictionaries included, by its path there."""
        prefix = f"{self.subfolder}/" if self.subfolder else ""
        own = tuple(RemoteFile(f"{prefix}{f.path}", f.bytes, f.sha256) for f in self.files)
        return own + (self.dictionaries.files if self.dictionaries else ())

    def expected(self) -> Mapping[str, RemoteFile]:
        """Needed files by their local names."""
        return {f.name: f for f in self.needed}


@cache
def checkpoints() -> Mapping[str, Checkpoint]:
    """Every known checkpoint by name."""
    content = tomllib.loads((files("scircuit") / "models" / "checkpoints.toml").read_text(encoding="utf-8"))
    series = {
        name: Dictionaries(series=name, **{**fields, "files": _files(fields["files"])})
        for name, fields in content["dictionaries"].items()
    }
    return {name: _checkpoint(name, fields, series) for name, fields in content["checkpoints"].items()}


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint called `name` (in any case, or by an alias)."""
    found = known_checkpoint(name)
    if found is None:
        near = get_close_matches(name.lower(), checkpoints(), n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(checkpoints())}."
        raise ScircuitError(f"There is no checkpoint called {name!r}; {hint}")
    return found


def known_checkpoint(name: str) -> Checkpoint | None:
    """As `find_checkpoint`; None when there is none."""
    folded = name.lower()
    return next((c for c in checkpoints().values() if folded in (c.name, *c.aliases)), None)


def recognise(sha256: str) -> Checkpoint | None:
    """The checkpoint whose weights have this hash, wherever the file lies and whatever its folder is called."""
    return next((c for c in checkpoints().values() if any(f.sha256 == sha256 for f in c.files)), None)


def list_checkpoints() -> pd.DataFrame:
    """Every known checkpoint, one row each.

    Columns `name, title, n_layers, d_model, n_parameters, bytes` (of the files whose size is known; 0 when none is),
    `licence, source` (hub repository and revision, or the address) and `paper`.
    """
    rows = [
        (c.name, c.title, c.n_layers, c.d_model, c.n_parameters, sum(f.bytes or 0 for f in c.needed), c.licence,
         f"{c.repo}@{c.revision[:12]}" if c.repo else c.address, c.paper)
        for c in checkpoints().values()
    ]  # fmt: skip
    columns = ["name", "title", "n_layers", "d_model", "n_parameters", "bytes", "licence", "source", "paper"]
    return pd.DataFrame(rows, columns=columns)


def _checkpoint(name: str, fields: dict[str, Any], series: Mapping[str, Dictionaries]) -> Checkpoint:
    dictionaries = series[fields["dictionaries"]] if "dictionaries" in fields else None
    plain = {k: v for k, v in fields.items() if k not in ("files", "dictionaries", "aliases")}
    return Checkpoint(
        name=name, files=_files(fields["files"]), dictionaries=dictionaries, aliases=tuple(fields["aliases"]), **plain
    )


def _files(entries: list[dict[str, Any]]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(**entry) for entry in entries)
