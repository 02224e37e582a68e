"""`RunFolder`: where a run's artefacts lie, which of them are there, and whose they are."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
            theirs = read_json(record)["config"]
            changed = _differences(theirs, settings(config))
            if changed:
                raise ScircuitError(
                    f"{root} holds a different run ({changed[0]}); choose another out folder or delete this one."
                )
        elif root.exists() and not (root.is_dir() and all(_unfinished(p) for p in root.iterdir())):
            raise ScircuitError(f"{root} exists and is no scircuit run; choose an empty or new folder for out.")
        return cls(root, config)

    def record(self) -> None:
        """Make the folder this run's; called once the inputs have proved good."""
        if not (self.root / "config.json").is_file():
            write_json(self.root / "config.json", {"format_version": 1, "config": settings(self.config)})

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


def _unfinished(path: Path) -> bool:
    """Whether a process that was killed while it wrote the first file left this."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def _differences(theirs: Any, mine: Any, where: str = "") -> list[str]:
    """Where two configs differ, as `section.key is A, asked B`."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        found = []
        for key in sorted(set(theirs) | set(mine)):
            found += _differences(theirs.get(key), mine.get(key), f"{where}.{key}" if where else key)
        return found
    return [] if theirs == mine else [f"{where} is {theirs!r} there, {mine!r} was asked"]
