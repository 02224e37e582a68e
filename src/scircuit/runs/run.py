"""`RunFolder`: where a run's artefacts lie, which of them are there, and whose they are."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scircuit import _lock
from scircuit._io import read_json, write_json
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError

MARKERS = {
    "tokens": "tokens.json",
    "saes": "manifest.json",
    "features": "labels.json",
    "trace": "trace.json",
    "circuit": "run.json",
    "confirmation": "confirmation.json",
    "analysis": "answers.parquet",
    "report": "index.html",
}
"""The file that each stage writes last."""
RESOURCES = ("tokens", "sources_per_block", "memory", "accept_approximation")
"""Settings of the trace that may change between calls of one run; `trace.json` records those it ran with."""
_FILES = ("model.source", "model.dictionaries", "cells.path", "sae.path", "sae.mix", "features.gene_sets")
COMMANDS = {
    "tokens": "tokenize", "saes": "train-sae", "features": "features", "trace": "trace", "circuit": "trace",
    "confirmation": "trace", "analysis": "analyze all", "report": "report",
}  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; opened for one config only."""

    root: Path
    config: RunConfig

    @classmethod
    def open(cls, config: RunConfig) -> "RunFolder":
        """The folder of a new run, or of the same run to go on with; nothing is written before `record`.

        Raises
        ------
        ScircuitError
            When it holds a run of another config, or files that are no run at all.
        """
        root = Path(config.out)
        record = root / "config.json"
        if record.is_file():
            found = read_json(record)
            changed = _differences(found["config"], settings(config))
            if changed:
                # The same files, seen from a folder that was moved together with them.
                was, now = found.get("places", {}), places(config)
                same = {name for name in now if name in was and was[name] == now[name]}
                changed = _differences(without_places(found["config"], same), without_places(settings(config), same))
            if changed:
                raise ScircuitError(
                    f"{root} holds a different run ({changed[0]}); choose another out folder or delete this one."
                )
        elif root.exists() and not (root.is_dir() and all(_unfinished(p) for p in root.iterdir())):
            raise ScircuitError(f"{root} exists and is no scircuit run; choose an empty or new folder for out.")
        return cls(root, config)

    def record(self) -> None:
        """Make the folder this run's, where it lies now; called once the inputs have proved good."""
        file = self.root / "config.json"
        content = {"format_version": 1, "config": settings(self.config), "places": places(self.config)}
        if not file.is_file() or read_json(file) != content:
            write_json(file, content)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes to those of a stage in `seconds.json`, unless it was done before."""
        if self.done(name):
            yield
            return
        started = time.monotonic()
        try:
            yield
        finally:
            if (self.root / "config.json").is_file():
                spent = self.seconds()
                spent[name] = round(spent.get(name, 0.0) + time.monotonic() - started, 2)
                write_json(self.root / "seconds.json", spent)

    def seconds(self) -> dict[str, float]:
        """Seconds spent per stage, over all calls."""
        file = self.root / "seconds.json"
        return dict(read_json(file)) if file.is_file() else {}

    def stage(self, name: str) -> Path:
        """Folder of a stage."""
        return self.root / name

    def done(self, name: str) -> bool:
        """Whether a stage's artefact is whole."""
        return (self.root / name / MARKERS[name]).is_file()

    def need(self, name: str) -> Path:
        """Folder of a stage that must be there already."""
        if not self.done(name):
            raise ScircuitError(
                f"{self.root} has no {name} yet; run `scircuit {COMMANDS[name]}` with the same config first."
            )
        return self.stage(name)


def settings(config: RunConfig) -> dict[str, Any]:
    """What decides a run, JSON-able: its config less where it lies, the memory it takes, how often it saves."""
    found = {k: v for k, v in config.to_dict().items() if k != "out"}
    found["trace"] = {k: v for k, v in found["trace"].items() if k not in RESOURCES}
    found["sae"].pop("checkpoint_every")
    return dict(json.loads(json.dumps(found, default=str)))  # as it is read again: lists for tuples


def places(config: RunConfig, seen_from: Callable[[Path], str] | None = None) -> dict[str, Any]:
    """The files that a run names, by `section.key`: where each lies as seen from the run's folder, or by `seen_from`.

    What names no file (a packaged model, a gene set library) stays as it is.
    """
    root = Path(config.out).absolute()

    def seen(value: str | None) -> str | None:
        if not value or not (Path(value).is_absolute() or Path(value).exists()):
            return value
        path = Path(os.path.normpath(Path(value).absolute()))
        return seen_from(path) if seen_from else Path(os.path.relpath(path, root)).as_posix()

    return {
        "model.source": seen(config.model.source),
        "model.dictionaries": seen(config.model.dictionaries),
        "cells.path": seen(config.cells.path),
        "sae.path": seen(config.sae.path),
        "sae.mix": [seen(part.path) for part in config.sae.mix],
        "features.gene_sets": [seen(name) for name in config.features.gene_sets],
    }


def without_places(config: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """`settings` less the files called `section.key`, by default all that `places` lists."""
    out = {section: dict(v) if isinstance(v, Mapping) else v for section, v in config.items()}
    for name in _FILES if names is None else names:
        section, key = name.split(".")
        if name == "sae.mix":
            out[section][key] = [{k: v for k, v in part.items() if k != "path"} for part in out[section].get(key, ())]
        else:
            out[section].pop(key, None)
    return out


def _unfinished(path: Path) -> bool:
    """Whether this is the lock, or what a process that was killed while it wrote the first file left."""
    return path.name == _lock.NAME or (path.name.startswith(".") and path.suffix == ".tmp")


def _differences(theirs: Any, mine: Any, where: str = "") -> list[str]:
    """Where two configs differ, as `section.key is A, asked B`."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        found = []
        for key in sorted(set(theirs) | set(mine)):
            found += _differences(theirs.get(key), mine.get(key), f"{where}.{key}" if where else key)
        return found
    return [] if theirs == mine else [f"{where} is {theirs!r} there, {mine!r} was asked"]
