"""`StudyFolder`: where a study's artefacts lie, and how far each stage has come."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scircuit import _lock
from scircuit._io import read_json, write_json
from scircuit.errors import ScircuitError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    Attributes
    ----------
    state : str
        `done`, `partial` (begun and interrupted; it goes on from its last checkpoint) or `waiting`.
    seconds : float or None
        Wall-clock time of the call that finished it.
    cpu_seconds : float or None
        Processor time of that call in this process, over all its threads: what a busy machine does not stretch.
    calls : int
        Calls that began it; with more than one, both are only what was left for the last.
    """

    state: str
    seconds: float | None = None
    cpu_seconds: float | None = None
    calls: int = 0


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study: `study.json`, `plan.json`, a marker per stage, and the stages' own folders."""

    root: Path

    @classmethod
    def open(cls, root: str | Path) -> "StudyFolder":
        """The folder of a new study or of one to go on with; nothing is written.

        Raises
        ------
        ScircuitError
            When it holds files that are no study.
        """
        root = Path(root)
        if root.exists() and not root.is_dir():
            raise ScircuitError(f"{root} is a file; choose a folder for out.")
        left = (
            [p for p in root.iterdir() if p.name != _lock.NAME and not p.name.startswith(".study.json.")]
            if root.is_dir()
            else []
        )
        if left and not (root / "study.json").is_file():
            raise ScircuitError(f"{root} exists and is no scircuit study; choose an empty or new folder for out.")
        return cls(root)

    def record(self, content: Any) -> None:
        """Keep what was asked, last version."""
        write_json(self.root / "study.json", {"format_version": FORMAT_VERSION, **content})

    def marker(self, stage: str) -> Path:
        """The file that says how far a stage has come."""
        return self.root / "stages" / f"{stage.replace(':', '-')}.json"

    def progress(self, stage: str, key: str) -> Progress:
        """State of a stage, as far as it was asked for with the same values (`key`)."""
        file = self.marker(stage)
        if not file.is_file():
            return Progress("waiting")
        found = read_json(file)
        if found.get("key") != key:
            return Progress("waiting")
        state = "done" if found["done"] else "partial"
        return Progress(state, found.get("seconds"), found.get("cpu_seconds"), found["calls"])

    @contextmanager
    def timed(self, stage: str, key: str) -> Iterator[None]:
        """Mark a stage as begun, and as done with its seconds when the block succeeds."""
        calls = self.progress(stage, key).calls + 1
        started, worked = time.perf_counter(), time.process_time()
        write_json(self.marker(stage), {"key": key, "done": False, "calls": calls})
        yield
        spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - worked}
        rounded = {name: round(value, 3) for name, value in spent.items()}
        write_json(self.marker(stage), {"key": key, "done": True, "calls": calls, **rounded})
