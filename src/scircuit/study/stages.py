"""The stages of a study: what each needs, what decides it, and the function that does it."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scircuit._io import sha256_of
from scircuit.config import RunConfig
from scircuit.runs.run import places, settings, without_places
from scircuit.study.config import Dictionaries, StudyCondition, StudyConfig


@dataclass(frozen=True)
class Stage:
    """A step of a study.

    Attributes
    ----------
    name : str
        `kind`, or `kind:PART` for a dictionary or condition.
    needs : tuple of str
        Stages that must be done before.
    settings : JSON-able
        What of the study decides its result, beside what it needs.
    run : callable
        Does it; takes the name of the cluster to trace on, or None. Called again after an interruption, it goes on.
    """

    name: str
    needs: tuple[str, ...]
    settings: Any
    run: Callable[[str | None], None]

    @property
    def kind(self) -> str:
        """Name without the part."""
        return self.name.partition(":")[0]


def stages(study: StudyConfig) -> list[Stage]:
    """Every stage, each after those that it needs."""
    out = [_dictionary(study, d) for d in study.dictionaries]
    for condition in study.conditions:
        out += _of_condition(study, condition)
    return out + _of_study(study)


def keys(todo: list[Stage]) -> dict[str, str]:
    """sha256 per stage of its settings and of all that it needs: a stage is done for one such key only."""
    found: dict[str, str] = {}
    for stage in todo:
        found[stage.name] = sha256_of(stage.kind, stage.settings, [found[name] for name in stage.needs])
    return found


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


def _dictionary(study: StudyConfig, part: Dictionaries) -> Stage:
    return Stage(f"dictionary:{part.name}", (), _identity(study, part.run), _until(part.run, "train-sae"))


def _of_condition(study: StudyConfig, c: StudyCondition) -> list[Stage]:
    """The road of one condition. The dictionary comes first: a condition refuses to start without."""
    from scircuit.study import outside

    name, run = c.name, Path(c.run.out)
    draws = {"draws": study.compare.draws, "seed": study.seed}
    return [
        Stage(f"tokens:{name}", (f"dictionary:{c.dictionaries}",), _identity(study, c.run), _until(c.run, "tokenize")),
        Stage(f"features:{name}", (f"tokens:{name}",), None, _until(c.run, "features")),
        Stage(f"trace:{name}", (f"features:{name}",), None, _until(c.run, "trace")),
        Stage(f"analysis:{name}", (f"trace:{name}",), None, lambda _: _analyse(run)),
        Stage(f"paper-analysis:{name}", (f"trace:{name}",), None, lambda _: _analyse_as_published(run)),
        Stage(f"knowledge:{name}", (f"trace:{name}",), draws, lambda _: outside.knowledge(study, c)),
    ]


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
    return [*out, Stage("report", asked + tuple(s.name for s in out), shown, lambda _: _report(study))]


def _until(config: RunConfig, stage: str) -> Callable[[str | None], None]:
    def run(cluster: str | None) -> None:
        from scircuit.runs.stages import run as run_until

        run_until(config, until=stage, cluster=cluster)

    return run


def _analyse(run: Path) -> None:
    from scircuit.runs.ask import ask_run

    ask_run(run)


def _analyse_as_published(run: Path) -> None:
    from scircuit.published.counts import write_numbers
    from scircuit.runs.ask import ask, questions_of

    ask(run, questions_of(run, "all", "paper"), "paper")
    write_numbers(run)


def _report(study: StudyConfig) -> None:
    from scircuit.study.page import write_study_report

    write_study_report(study)
