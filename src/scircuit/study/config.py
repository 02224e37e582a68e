"""A study as data: dictionaries, the conditions traced through them, and what is asked between conditions.

One TOML file. `[defaults]` holds values of a run (`scircuit init` explains each) that every dictionary and condition
starts from; `[dictionaries.NAME]` and each `[[conditions]]` say what is their own. Every part becomes a whole
`RunConfig` here, so that a mistake anywhere is met before anything is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from scircuit._settings import ranged
from scircuit._wording import did_you_mean
from scircuit.config import RunConfig
from scircuit.config_file import (
    SECTIONS,
    build,
    check_keys,
    check_profile,
    merged,
    parse_config,
    place,
    read_toml,
    relative_to,
    section_lines,
)
from scircuit.errors import ScircuitError

_TRAINING = ("model", "cells", "sae")
_OF_DICTIONARY = ("seed", *_TRAINING)
_OF_CONDITION = ("name", "group", "dictionaries", "published", "seed", *(s for s in SECTIONS if s != "sae"))
_SAME_MODEL = ("source", "protocol", "dictionaries", "dtype", "weights", "options")
"""What decides a model's fingerprint, which a dictionary belongs to."""
PUBLISHED = ("A", "B", "T", "G")
"""Conditions of the published study; `published/data/published.toml` says what each is."""
TEMPLATES = ("own", "paper")
"""What `scircuit study init` can write."""
_REFERENCE = """
# ---------------------------------------------------------------------------------------------------------------------
# Every setting of a run with its default, for [defaults.SECTION], [dictionaries.NAME.SECTION] (model, cells, sae) and
# [conditions.SECTION] (all but sae).
"""


@dataclass(frozen=True)
class CompareSection:
    """What is asked between conditions."""

    draws: int = 1000
    """Redraws of every null."""
    paper_draws: int = 1000
    """Redraws of the published consensus null; 0 leaves it out."""
    min_models: int = ranged(2, 2)
    """Groups of conditions (models) that must share a label pair for it to be conserved."""


@dataclass(frozen=True)
class DiseaseSection:
    """Whether disease genes sit at special places of the circuits."""

    sources: tuple[str, ...] = ()
    """Disease genes of `scircuit knowledge list` (clingen, intogen, ...), or files; none leaves the question out."""


@dataclass(frozen=True)
class ControlsSection:
    """Whether an untrained model, or dictionaries that learnt but half, would give the same."""

    conditions: tuple[str, ...] = ()
    """Conditions whose whole road is run on them too (`scircuit controls`); none leaves the question out."""


@dataclass(frozen=True)
class PerturbationSection:
    """Whether circuits predict a CRISPR screen."""

    screen: str = ""
    """An .h5ad of a CRISPRi or knock-out screen; empty leaves the question out."""
    perturbation: str | None = None
    """Column of obs that names the perturbation; detected when it can be."""
    control: str | None = None
    """Its label for unperturbed cells; detected when it can be."""
    lines: tuple[str, ...] = ()
    """Cell lines to keep."""
    min_cells: int = 30
    """Fewest cells of a perturbation."""
    conditions: tuple[str, ...] = ()
    """Conditions whose circuits are judged; by default every one."""


@dataclass(frozen=True)
class Dictionaries:
    """Dictionaries that are trained once: `run` is a run up to its training."""

    name: str
    run: RunConfig


@dataclass(frozen=True)
class StudyCondition:
    """One traced circuit: a model, dictionaries and cells.

    `group` names the model that conditions are taken together by, `published` the condition of the published study
    that it repeats (A, B, T or G), if any.
    """

    name: str
    group: str
    dictionaries: str
    run: RunConfig
    published: str | None = None


@dataclass(frozen=True)
class StudyQuestions:
    """What a study is called and what it asks."""

    name: str = "study"
    """Title of the report."""
    seed: int = 0
    """Seeds every draw; parts may have seeds of their own."""
    profile: str = "default"
    """As of a run."""
    compare: CompareSection = field(default_factory=CompareSection)
    disease: DiseaseSection = field(default_factory=DiseaseSection)
    controls: ControlsSection = field(default_factory=ControlsSection)
    perturbation: PerturbationSection = field(default_factory=PerturbationSection)


@dataclass(frozen=True)
class StudyFile(StudyQuestions):
    """A study's file as it stands: tables of a run's values, not yet laid over each other."""

    out: str = "study"
    """Folder of everything that is computed."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Values that every dictionary and condition starts from."""
    dictionaries: dict[str, Any] = field(default_factory=dict)
    """By name, what is a dictionary's own."""
    conditions: tuple[dict[str, Any], ...] = ()
    """What is each condition's own."""


@dataclass(frozen=True)
class StudyConfig(StudyQuestions):
    """A whole study, every part resolved; `folder` is that of its file."""

    out: Path = Path("study")
    dictionaries: tuple[Dictionaries, ...] = ()
    conditions: tuple[StudyCondition, ...] = ()
    folder: Path = Path()

    @property
    def groups(self) -> list[str]:
        """Models in order of appearance."""
        return list(dict.fromkeys(condition.group for condition in self.conditions))


def load_study(path: str | Path) -> StudyConfig:
    """Read and validate a study's file; relative paths in it are relative to the file."""
    path = Path(path)
    content = read_toml(path, "study", "scircuit study init")
    return parse_study(content, where=str(path), folder=path.parent)


def parse_study(content: Mapping[str, Any], where: str = "study", folder: str | Path = ".") -> StudyConfig:
    """A validated study from nested values."""
    file: StudyFile = build(StudyFile, content, where)
    folder = Path(folder)
    out = (folder / file.out).absolute()
    check_profile(file.profile, where)
    _check_tables(file.defaults, f"{where}: defaults", SECTIONS)
    if not file.dictionaries:
        raise ScircuitError(f"{where}: there are no dictionaries; add at least one [dictionaries.NAME].")
    if not file.conditions:
        raise ScircuitError(f"{where}: there is no condition; add at least one [[conditions]].")
    dictionaries = {name: _dictionaries(name, file, out, where) for name in file.dictionaries}
    conditions = [_condition(i, file, dictionaries, out, where) for i in range(len(file.conditions))]
    names = [condition.name for condition in conditions]
    for name in names:
        if names.count(name) > 1:
            raise ScircuitError(f"{where}: two conditions are called {name!r}; give each its own name.")
    for section in ("perturbation", "controls"):
        for asked in getattr(file, section).conditions:
            if asked not in names:
                raise ScircuitError(
                    f"{where}: {section}.conditions names {asked!r}; conditions are {', '.join(names)}."
                )
    sources = tuple(place(name, folder) for name in file.disease.sources)
    return StudyConfig(
        file.name,
        file.seed,
        file.profile,
        file.compare,
        replace(file.disease, sources=sources),
        file.controls,
        replace(file.perturbation, screen=place(file.perturbation.screen, folder)),
        folder / file.out,
        tuple(replace(d, run=relative_to(d.run, folder)) for d in dictionaries.values()),
        tuple(replace(c, run=relative_to(c.run, folder)) for c in conditions),
        folder,
    )


def _run(
    file: StudyFile, own: Mapping[str, Any], name: str, out: Path, where: str, *tables: Mapping[str, Any]
) -> RunConfig:
    """The run of a part: its tables over each other, with the study's seed (or its own) and profile."""
    part = {"name": name, "out": str(out / name), "seed": own.get("seed", file.seed), "profile": file.profile}
    return parse_config({**merged(*tables), **part}, where)


def _only(tables: Mapping[str, Any], sections: Sequence[str]) -> dict[str, Any]:
    return {name: tables[name] for name in sections if name in tables}


def _dictionaries(name: str, file: StudyFile, out: Path, where: str) -> Dictionaries:
    where, own = f"{where}: dictionaries.{name}", file.dictionaries[name]
    _check_name(name, where)
    _check_tables(own, where, _OF_DICTIONARY)
    run = _run(file, own, name, out / "dictionaries", where, _only(file.defaults, _TRAINING), _only(own, _TRAINING))
    if run.sae.path:
        raise ScircuitError(f"{where}: sae.path names trained dictionaries; leave it out, they are trained here.")
    return Dictionaries(name, run)


def _condition(
    position: int, file: StudyFile, dictionaries: Mapping[str, Dictionaries], out: Path, where: str
) -> StudyCondition:
    where, own = f"{where}: conditions[{position}]", file.conditions[position]
    _check_tables(own, where, _OF_CONDITION)
    name = _text(own, "name", where)
    _check_name(name, where)
    where = f"{where} ({name})"
    source = _text(own, "dictionaries", where)
    if source not in dictionaries:
        hint = did_you_mean(source, dictionaries)
        raise ScircuitError(
            f"{where}: there are no dictionaries {source!r}; {hint}Known are {', '.join(dictionaries)}."
        )
    published = own.get("published")
    if published is not None and published not in PUBLISHED:
        raise ScircuitError(f"{where}: published = {published!r} is unknown; it may be {', '.join(PUBLISHED)}.")
    trained = dictionaries[source].run
    # On other cells than the dictionary's, its filters and columns say nothing.
    shared = ("model",) if "path" in own.get("cells", {}) else ("model", "cells")
    theirs = {
        "path": str(Path(trained.out) / "saes"),
        "layers": list(trained.sae.layers),
        "quality_cells": trained.sae.quality_cells,
    }
    run = _run(
        file, own, name, out / "conditions", where,
        {**_only(file.defaults, SECTIONS), "sae": theirs}, _only(file.dictionaries[source], shared),
        _only(own, SECTIONS),
    )  # fmt: skip
    _check_model(run, trained, source, where)
    return StudyCondition(name, str(own.get("group", run.model.source)), source, run, published)


def _check_model(run: RunConfig, trained: RunConfig, name: str, where: str) -> None:
    """Dictionaries belong to one model, protocol and precision, and to the layers they were trained on."""
    for key in _SAME_MODEL:
        mine, theirs = getattr(run.model, key), getattr(trained.model, key)
        if mine != theirs:
            raise ScircuitError(
                f"{where}: model.{key} is {mine!r}, but the dictionaries {name!r} are of a model with {theirs!r}; name "
                "dictionaries of this model, or leave model out to take theirs."
            )
    layers = trained.sae.layers
    for key, asked in (("sources.layers", run.sources.layers), ("trace.targets", run.trace.targets)):
        strange = [layer for layer in asked if layers and layer not in layers]
        if strange:
            raise ScircuitError(
                f"{where}: {key} names {strange[0]}; the dictionaries {name!r} are of layers "
                f"{', '.join(map(str, layers))}."
            )


def _check_tables(content: Any, where: str, allowed: Sequence[str]) -> None:
    """Refuse a part that is no table, has keys that it may not, or sections that are no tables."""
    if not isinstance(content, Mapping):
        raise ScircuitError(f"{where} must be a table of values, not {content!r}.")
    check_keys(content, allowed, where)
    for section in _only(content, SECTIONS):
        if not isinstance(content[section], Mapping):
            raise ScircuitError(f"{where}: {section} must be a table of values, not {content[section]!r}.")


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise ScircuitError(f"{where}: {key} is missing; give it a name.")
    return value


def _check_name(name: str, where: str) -> None:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ScircuitError(f"{where}: {name!r} names a folder; use letters, digits, - and _.")


def template(name: str) -> str:
    """The text of a study's file: `own`, or `paper` for the published one."""
    if name not in TEMPLATES:
        raise ScircuitError(f"There is no study called {name!r}; it may be {', '.join(TEMPLATES)}.")
    text = (files("scircuit.study") / "data" / f"{name}.toml").read_text(encoding="utf-8")
    # What is a comment already stays one: the file is a study as it stands.
    reference = (line if line.startswith("#") else f"# {line}".rstrip() for line in section_lines())
    return text + _REFERENCE + "\n".join(reference) + "\n"
