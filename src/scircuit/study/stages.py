"""The stages of a study: what each needs, what decides it, the function that does it, and how far it has come."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit import _lock
from scircuit._io import read_json, sha256_of, write_json
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.runs.identity import places, settings, without_places
from scircuit.study.config import StudyCondition, StudyConfig

log = logging.getLogger(__name__)
FORMAT_VERSION = 1
PLAN = "plan.json"


@dataclass(frozen=True)
class Stage:
    """A step of a study."""

    name: str
    """`kind`, or `kind:PART` for a dictionary or condition."""
    needs: tuple[str, ...]
    """Stages that must be done before."""
    settings: Any
    """What of the study decides its result, beside what it needs."""
    run: Callable[[str | None], None]
    """Does it; takes the name of the cluster to trace on, or None. Called again after an interruption, it goes on."""

    @property
    def kind(self) -> str:
        """Name without the part."""
        return self.name.partition(":")[0]


def stages(study: StudyConfig) -> list[Stage]:
    """Every stage, each after those that it needs."""
    out = [
        Stage(f"dictionary:{d.name}", (), _identity(study, d.run), _until(d.run, "train-sae"))
        for d in study.dictionaries
    ]
    for condition in study.conditions:
        out += _of_condition(study, condition)
    return out + _of_study(study)


def keys(todo: list[Stage]) -> dict[str, str]:
    """sha256 per stage of its settings and of all that it needs: a stage is done for one such key only."""
    found: dict[str, str] = {}
    for stage in todo:
        found[stage.name] = sha256_of(stage.kind, stage.settings, [found[name] for name in stage.needs])
    return found


@dataclass(frozen=True)
class Progress:
    """How far a stage has come."""

    state: str
    """`done`, `partial` (begun and interrupted; it goes on from its last checkpoint) or `waiting`."""
    seconds: float | None = None
    """Wall-clock time of the call that finished it."""
    cpu_seconds: float | None = None
    """Processor time of that call in this process, over all its threads: what a busy machine does not stretch."""
    calls: int = 0
    """Calls that began it; with more than one, both are only what was left for the last."""


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study: `study.json`, `plan.json`, a marker per stage, and the stages' own folders."""

    root: Path

    @classmethod
    def open(cls, root: str | Path) -> "StudyFolder":
        """The folder of a new study or of one to go on with; nothing is written."""
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


def status(study: StudyConfig) -> pd.DataFrame:
    """One row per stage: `stage, state, calls, seconds, cpu_seconds, planned_seconds` (NaN before there is a plan)."""
    todo = stages(study)
    folder, known = StudyFolder.open(study.out), keys(todo)
    planned = planned_seconds(folder.root)
    rows = []
    for stage in todo:
        found = folder.progress(stage.name, known[stage.name])
        rows.append((stage.name, found.state, found.calls, found.seconds, found.cpu_seconds, planned.get(stage.name)))
    table = pd.DataFrame(rows, columns=["stage", "state", "calls", "seconds", "cpu_seconds", "planned_seconds"])
    return table.astype({"seconds": float, "cpu_seconds": float, "planned_seconds": float})


def planned_seconds(root: Path) -> Mapping[str, float]:
    """Seconds per stage of the plan that lies in a study's folder; empty without one."""
    file = root / PLAN
    if not file.is_file():
        return {}
    return {row["stage"]: row["seconds"] for row in read_json(file)["stages"] if row["seconds"] is not None}


def description(study: StudyConfig) -> dict[str, Any]:
    """The whole study, every value resolved, JSON-able."""
    return {
        "name": study.name,
        "seed": study.seed,
        "profile": study.profile,
        "dictionaries": {d.name: settings(d.run) for d in study.dictionaries},
        "conditions": {
            c.name: {"group": c.group, "published": c.published, "dictionaries": c.dictionaries, **settings(c.run)}
            for c in study.conditions
        },
        "compare": asdict(study.compare),
        "disease": asdict(study.disease),
        "controls": asdict(study.controls),
        "perturbation": asdict(study.perturbation),
    }


def seen_from(folder: Path, path: str | Path) -> str:
    """A file inside `folder` as seen from there, any other by its whole path: a study that is moved stays itself."""
    here, path = (Path(os.path.normpath(p.absolute())) for p in (folder, Path(path)))
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def _identity(study: StudyConfig, run: RunConfig) -> list[Any]:
    """What decides a run, the same wherever the study lies and from wherever it is called."""
    return [without_places(settings(run)), places(run, lambda path: seen_from(study.folder, path))]


def _file(study: StudyConfig, name: str) -> str:
    """Likewise of one value that may name a file."""
    return seen_from(study.folder, name) if name and Path(name).exists() else name


def _of_condition(study: StudyConfig, c: StudyCondition) -> list[Stage]:
    """The road of one condition. The dictionary comes first: a condition refuses to start without."""
    from scircuit.study import outside

    name, run = c.name, Path(c.run.out)
    draws = {"draws": study.compare.draws, "seed": study.seed}
    out = [
        Stage(f"tokens:{name}", (f"dictionary:{c.dictionaries}",), _identity(study, c.run), _until(c.run, "tokenize")),
        Stage(f"features:{name}", (f"tokens:{name}",), None, _until(c.run, "features")),
        Stage(f"trace:{name}", (f"features:{name}",), None, _until(c.run, "trace")),
        Stage(f"analysis:{name}", (f"trace:{name}",), None, lambda _: _analyse(run, "default")),
        Stage(f"paper-analysis:{name}", (f"trace:{name}",), None, lambda _: _analyse(run, "paper")),
        Stage(f"knowledge:{name}", (f"trace:{name}",), draws, lambda _: outside.knowledge(study, c)),
    ]
    if name in study.controls.conditions:
        out.append(Stage(f"controls:{name}", (f"analysis:{name}",), None, lambda cluster: _controls(c.run, cluster)))
    return out


def _of_study(study: StudyConfig) -> list[Stage]:
    """What is asked between conditions, of the world outside, and the report of it all."""
    from scircuit.study import between, outside

    traced = tuple(f"trace:{c.name}" for c in study.conditions)
    groups = {c.name: c.group for c in study.conditions}
    ill = [_file(study, name) for name in study.disease.sources]
    decides = {**asdict(study.compare), "disease": ill, "groups": groups, "seed": study.seed}
    out = [Stage("compare", traced, decides, lambda _: between.compare(study))]
    if study.disease.sources:
        out.append(Stage("disease", traced, ill, lambda _: outside.disease(study)))
    if study.perturbation.screen:
        judged = study.perturbation.conditions or tuple(c.name for c in study.conditions)
        needs = tuple(f"trace:{name}" for name in judged)
        screen = _file(study, study.perturbation.screen)
        decides = {**asdict(study.perturbation), "screen": screen, "seed": study.seed}
        out.append(Stage("validate", needs, decides, lambda _: outside.validate(study)))
    asked = tuple(f"{kind}:{c.name}" for c in study.conditions for kind in ("analysis", "paper-analysis", "knowledge"))
    shown = [study.name, [[c.name, c.published] for c in study.conditions]]
    asked += tuple(f"controls:{name}" for name in study.controls.conditions)
    return [*out, Stage("report", asked + tuple(s.name for s in out), shown, lambda _: _report(study))]


def _until(config: RunConfig, stage: str) -> Callable[[str | None], None]:
    def run(cluster: str | None) -> None:
        from scircuit.runs.stages import run as run_until

        run_until(config, until=stage, cluster=cluster)

    return run


def _analyse(run: Path, profile: str) -> None:
    from scircuit.circuits.artefacts import Artefacts
    from scircuit.published.counts import write_numbers
    from scircuit.runs.ask import ask, ask_run, questions_of

    if profile == "default":
        ask_run(run)
    else:
        ask(run, questions_of(run, "all", profile), profile)
        write_numbers(Artefacts(run))


def _controls(config: RunConfig, cluster: str | None) -> None:
    from scircuit.runs.ask import ask
    from scircuit.runs.controls import controls

    controls(config, cluster=cluster)
    try:
        ask(config.out, ["controls"])
    except ScircuitError as error:  # no control came to a number: the study goes on, and the table says why
        log.warning("%s", error)


def _report(study: StudyConfig) -> None:
    from scircuit.study.page import write_study_report

    write_study_report(study, status(study))
