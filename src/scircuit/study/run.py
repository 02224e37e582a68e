"""Running a study: every stage that is not done, in order; and where each one stands."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import read_json
from scircuit._lock import locked
from scircuit.errors import ScircuitError
from scircuit.runs.run import settings
from scircuit.study.config import StudyConfig
from scircuit.study.folder import StudyFolder
from scircuit.study.needs import check_needs
from scircuit.study.stages import Stage, keys, stages

log = logging.getLogger(__name__)


def run_study(study: StudyConfig, *, until: str | None = None, cluster: str | None = None) -> Path:
    """Do every stage that is not done, and return the study's folder.

    May be interrupted at any moment, also by a power cut, and called again: finished stages are left alone, a trace
    goes on from its last block of cells, the others begin anew.

    Parameters
    ----------
    until : str, optional
        Last stage to do, by its name (`trace:NAME`) or kind (`trace`, for every condition).
    cluster : str, optional
        Dask workers that trace; see `tracing.distributed.open_client`.

    Raises
    ------
    ScircuitError
        On a file that is missing, before anything is computed; on an unknown stage; while another process runs the
        study; or as the stage that fails.
    """
    todo = stages(study)
    last = _last(todo, until)
    folder = StudyFolder.open(study.out)
    check_needs(study)
    import scircuit.runs.stages  # noqa: F401  what it imports is no part of the first stage

    with locked(folder.root):
        folder.record(description(study))
        _work(folder, todo[: last + 1], len(todo), keys(todo), cluster)
    return folder.root


def _work(folder: StudyFolder, todo: list[Stage], total: int, known: Mapping[str, str], cluster: str | None) -> None:
    for number, stage in enumerate(todo, start=1):
        if folder.progress(stage.name, known[stage.name]).state == "done":
            continue
        log.info("stage %d of %d: %s", number, total, stage.name)
        with folder.timed(stage.name, known[stage.name]):
            stage.run(cluster)


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
    file = root / "plan.json"
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
        "perturbation": asdict(study.perturbation),
    }


def _last(todo: list[Stage], until: str | None) -> int:
    if until is None:
        return len(todo) - 1
    places = [i for i, stage in enumerate(todo) if until in (stage.name, stage.kind)]
    if not places:
        names = ", ".join(dict.fromkeys([stage.kind for stage in todo] + [stage.name for stage in todo]))
        raise ScircuitError(f"there is no stage {until!r}; choose one of {names}.")
    return places[-1]
