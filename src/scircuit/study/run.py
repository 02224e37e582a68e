"""Running a study: every stage that is not done, in order."""

import logging
from pathlib import Path

from scircuit._lock import locked
from scircuit.errors import ScircuitError
from scircuit.study.config import StudyConfig
from scircuit.study.needs import check_needs
from scircuit.study.stages import Stage, StudyFolder, description, keys, stages

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
        known = keys(todo)
        for number, stage in enumerate(todo[: last + 1], start=1):
            if folder.progress(stage.name, known[stage.name]).state == "done":
                continue
            log.info("stage %d of %d: %s", number, len(todo), stage.name)
            with folder.timed(stage.name, known[stage.name]):
                stage.run(cluster)
    return folder.root


def _last(todo: list[Stage], until: str | None) -> int:
    if until is None:
        return len(todo) - 1
    places = [i for i, stage in enumerate(todo) if until in (stage.name, stage.kind)]
    if not places:
        names = ", ".join(dict.fromkeys([stage.kind for stage in todo] + [stage.name for stage in todo]))
        raise ScircuitError(f"there is no stage {until!r}; choose one of {names}.")
    return places[-1]
