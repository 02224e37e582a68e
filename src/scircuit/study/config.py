"""A study as data: dictionaries, the conditions traced through them, and what is asked between conditions.

One TOML file. `[defaults]` holds values of a run (`scircuit init` explains each) that every dictionary and condition
starts from; `[dictionaries.NAME]` and each `[[conditions]]` say what is their own. Every part becomes a whole
`RunConfig` here, so that a mistake anywhere is met before anything is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from scircuit._wording import did_you_mean
from scircuit.config import PROFILES, RunConfig
from scircuit.config_file import build_section, check_keys, parse_config, read_toml, relative_to
from scircuit.errors import ScircuitError

_TOP = (
    "name", "out", "seed", "profile", "defaults", "dictionaries", "conditions", "compare", "disease", "perturbation",
)  # fmt: skip
_RUN_SECTIONS = tuple(f.name for f in fields(RunConfig) if is_dataclass(f.default_factory))
_OF_DICTIONARY = ("seed", "model", "cells", "sae")
_OF_CONDITION = ("name", "group", "dictionaries", "published", "seed", *(s for s in _RUN_SECTIONS if s != "sae"))
_SAME_MODEL = ("source", "protocol", "dictionaries", "dtype", "options")
"""What decides a model's fingerprint, which a dictionary belongs to."""
PUBLISHED = ("A", "B", "T", "G")
"""Conditions of the published study; `published/data/published.toml` says what each is."""


@dataclass(frozen=True)
class CompareSection:
    """What is asked between conditions."""

    draws: int = 1000
    """Redraws of every null."""
    paper_draws: int = 1000
    """Redraws of the published consensus null; 0 leaves it out."""
    min_models: int = 2
    """Groups of conditions (models) that must share a label pair for it to be conserved."""


@dataclass(frozen=True)
class DiseaseSection:
    """Whether disease genes sit at special places of the circuits."""

    sources: tuple[str, ...] = ()
    """Disease genes of `scircuit knowledge list` (clingen, intogen, ...), or files; none leaves the question out."""


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
class StudyConfig:
    """A whole study, every part resolved; `folder` is that of its file."""

    name: str
    out: Path
    seed: int
    profile: str
    dictionaries: tuple[Dictionaries, ...]
    conditions: tuple[StudyCondition, ...]
    compare: CompareSection = field(default_factory=CompareSection)
    disease: DiseaseSection = field(default_factory=DiseaseSection)
    perturbation: PerturbationSection = field(default_factory=PerturbationSection)
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
    """A validated study from nested values.

    Raises
    ------
    ScircuitError
        On an unknown key or dictionary (with the nearest known one), a repeated name, a condition whose model is not
        that of its dictionaries, source layers without a dictionary, or whatever a run's own config refuses.
    """
    check_keys(content, _TOP, where)
    seed, profile, folder = _integer(content, "seed", where), str(content.get("profile", "default")), Path(folder)
    if profile not in PROFILES:
        raise ScircuitError(f"{where}: profile = {profile!r} is unknown; it may be {', '.join(PROFILES)}.")
    out = folder / str(content.get("out", "study"))
    defaults = _table(content.get("defaults", {}), f"{where}: defaults", _RUN_SECTIONS)
    common = {"seed": seed, "profile": profile}
    dictionaries = {
        name: _dictionaries(name, own, defaults, common, out, f"{where}: dictionaries.{name}")
        for name, own in _named(content.get("dictionaries", {}), where).items()
    }
    conditions = [
        _condition(own, position, dictionaries, content, common, out, where)
        for position, own in enumerate(_listed(content.get("conditions", []), where))
    ]
    names = [condition.name for condition in conditions]
    for name in names:
        if names.count(name) > 1:
            raise ScircuitError(f"{where}: two conditions are called {name!r}; give each its own name.")
    study = StudyConfig(
        name=str(content.get("name", "study")),
        out=out,
        seed=seed,
        profile=profile,
        dictionaries=tuple(replace(d, run=relative_to(d.run, folder)) for d in dictionaries.values()),
        conditions=tuple(replace(c, run=relative_to(c.run, folder)) for c in conditions),
        compare=build_section(CompareSection, content.get("compare", {}), f"{where}: compare"),
        disease=build_section(DiseaseSection, content.get("disease", {}), f"{where}: disease"),
        perturbation=build_section(PerturbationSection, content.get("perturbation", {}), f"{where}: perturbation"),
        folder=folder,
    )
    return _placed(study, folder, where)


def _named(tables: Any, where: str) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(tables, Mapping) or not tables:
        raise ScircuitError(f"{where}: there are no dictionaries; add at least one [dictionaries.NAME].")
    return tables


def _listed(tables: Any, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(tables, list) or not tables:
        raise ScircuitError(f"{where}: there is no condition; add at least one [[conditions]].")
    return tables


def _dictionaries(
    name: str,
    own: Mapping[str, Any],
    defaults: Mapping[str, Any],
    common: Mapping[str, Any],
    out: Path,
    where: str,
) -> Dictionaries:
    _check_name(name, where)
    own = _table(own, where, _OF_DICTIONARY)
    kept = {section: defaults[section] for section in ("model", "cells", "sae") if section in defaults}
    merged = _merge(kept, own, ("model", "cells", "sae"))
    content = {**common, **merged, "name": name, "out": str(out.absolute() / "dictionaries" / name)}
    if "seed" in own:
        content["seed"] = own["seed"]
    run = parse_config(content, where)
    if run.sae.path:
        raise ScircuitError(f"{where}: sae.path names trained dictionaries; leave it out, they are trained here.")
    return Dictionaries(name, run)


def _condition(
    own: Mapping[str, Any],
    position: int,
    dictionaries: Mapping[str, Dictionaries],
    study: Mapping[str, Any],
    common: Mapping[str, Any],
    out: Path,
    where: str,
) -> StudyCondition:
    where = f"{where}: conditions[{position}]"
    own = _table(own, where, _OF_CONDITION)
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
    trained, defaults = dictionaries[source].run, study.get("defaults", {})
    theirs = study["dictionaries"][source]
    inherited = _merge(defaults, {k: theirs[k] for k in ("model", "cells") if k in theirs}, _RUN_SECTIONS)
    if "path" in own.get("cells", {}):
        # Other cells than the dictionary's: its filters and columns say nothing about them.
        inherited["cells"] = dict(defaults.get("cells", {}))
    merged = _merge(inherited, own, _RUN_SECTIONS)
    folder = Path(trained.out)
    merged["sae"] = {
        "path": str(folder / "saes"),
        "layers": list(trained.sae.layers),
        "quality_cells": trained.sae.quality_cells,
    }
    content = {**common, **merged, "name": name, "out": str(out.absolute() / "conditions" / name)}
    if "seed" in own:
        content["seed"] = own["seed"]
    run = parse_config(content, where)
    _check_model(run, trained, source, where)
    group = own.get("group", run.model.source)
    return StudyCondition(name, str(group), source, run, published)


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


def _placed(study: StudyConfig, folder: Path, where: str) -> StudyConfig:
    """Paths outside the runs, seen from the file's folder, and the names that sections refer to."""
    names = [condition.name for condition in study.conditions]
    for asked in study.perturbation.conditions:
        if asked not in names:
            raise ScircuitError(f"{where}: perturbation.conditions names {asked!r}; conditions are {', '.join(names)}.")
    if study.compare.min_models < 2:
        raise ScircuitError(f"{where}: compare.min_models is {study.compare.min_models}; it must be at least 2.")

    def place(value: str) -> str:
        return str(folder / value) if value and (folder / value).exists() else value

    return replace(
        study,
        disease=replace(study.disease, sources=tuple(place(s) for s in study.disease.sources)),
        perturbation=replace(study.perturbation, screen=place(study.perturbation.screen)),
    )


def _merge(base: Mapping[str, Any], own: Mapping[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    """Section by section, own values over the base's."""
    return {s: {**base.get(s, {}), **own.get(s, {})} for s in sections if s in base or s in own}


def _table(content: Any, where: str, allowed: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ScircuitError(f"{where} must be a table of values, not {content!r}.")
    check_keys(content, allowed, where)
    for section in _RUN_SECTIONS:
        if not isinstance(content.get(section, {}), Mapping):
            raise ScircuitError(f"{where}: {section} must be a table of values, not {content[section]!r}.")
    return content


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise ScircuitError(f"{where}: {key} is missing; give it a name.")
    return value


def _integer(content: Mapping[str, Any], key: str, where: str) -> int:
    value = content.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ScircuitError(f"{where}: {key} = {value!r} is of the wrong type; int is needed.")
    return value


def _check_name(name: str, where: str) -> None:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ScircuitError(f"{where}: {name!r} names a folder; use letters, digits, - and _.")
