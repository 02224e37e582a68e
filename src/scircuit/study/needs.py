"""What a study reads from outside: every file with its size, licence, whether it is here, and how it comes here."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scircuit._packaged import PACKAGED, model_folder
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.knowledge.record import is_path
from scircuit.knowledge.registry import list_sources
from scircuit.models.hub import by_hand, missing_files
from scircuit.models.plugin import is_function
from scircuit.models.registry import Checkpoint, known_checkpoint
from scircuit.study.config import StudyConfig

_PROGRAMS = "programs"


@dataclass(frozen=True)
class Need:
    """Something a study reads."""

    kind: str
    """Weights, token dictionaries, cells, gene sets, disease genes, screen."""
    name: str
    """What the study calls it."""
    present: bool
    """Whether it is on this machine."""
    how: str = ""
    """The command or address that brings it; empty where it is here."""
    bytes: int | None = None
    """Its size, None where it is not known."""
    licence: str = ""
    used_by: tuple[str, ...] = ()
    """Dictionaries and conditions."""


def study_needs(study: StudyConfig) -> list[Need]:
    """Everything the study reads, each once, in the order of first use."""
    found: dict[tuple[str, str], Need] = {}
    for need in _every(study):
        key = (need.kind, need.name)
        known = found.get(key)
        users = dict.fromkeys((*known.used_by, *need.used_by) if known else need.used_by)
        found[key] = replace(need, used_by=tuple(users))
    return list(found.values())


def check_needs(study: StudyConfig) -> None:
    """Refuse a study that lacks a file, naming the first and what brings it, before anything is computed."""
    missing = [need for need in study_needs(study) if not need.present]
    if not missing:
        return
    first, more = missing[0], len(missing) - 1
    rest = f" {more} more {'is' if more == 1 else 'are'} missing: `scircuit study plan` lists them." if more else ""
    raise ScircuitError(
        f"{first.kind} {first.name} (used by {', '.join(first.used_by)}) is not on this machine: {first.how}.{rest}"
    )


def _every(study: StudyConfig) -> Iterator[Need]:
    for dictionary in study.dictionaries:
        yield from _of_run(dictionary.run, dictionary.name, knowledge=False)
    for condition in study.conditions:
        yield from _of_run(condition.run, condition.name, knowledge=True)
    for name in study.disease.sources:
        yield _knowledge("disease genes", name, "disease")
    if study.perturbation.screen:
        yield _file("screen", study.perturbation.screen, "perturbation.screen", "validate")


def _of_run(run: RunConfig, user: str, *, knowledge: bool) -> Iterator[Need]:
    yield from (replace(need, used_by=(user,)) for need in model_needs(run))
    paths = [part.path for part in run.sae.mix] if run.sae.mix and not run.sae.path else []
    for path in [run.cells.path, *paths]:
        yield replace(_cells(path), used_by=(user,))
    for name in run.features.gene_sets if knowledge else ():
        yield _knowledge("gene sets", name, user)


def model_needs(run: RunConfig) -> list[Need]:
    """Weights and token dictionaries of a run's model."""
    source = run.model.source
    if source in PACKAGED:
        return [
            Need("weights", source, True, bytes=_size(model_folder(source)), licence="MIT (ships with the package)")
        ]
    if is_function(source):
        file = source.rpartition(":")[0]
        here = Path(file).is_file() or not file.endswith(".py")
        return [Need("weights", source, here, "" if here else f"{file} does not exist; correct model.source")]
    if Path(source).is_dir():
        known = known_checkpoint(Path(source).name)
        return [Need("weights", source, True, bytes=_size(Path(source)), licence=known.licence if known else "")]
    known = known_checkpoint(source)
    if known is None:
        how = f"{source} is neither a folder nor a checkpoint of `scircuit models list`; correct model.source"
        return [Need("weights", source, False, how)]
    return _published(known, run.model.dictionaries)


def _published(checkpoint: Checkpoint, own: str | None) -> list[Need]:
    """Weights, and token dictionaries where they are files of their own and the run names no other."""
    how = f"run `scircuit models fetch {checkpoint.name}`" if checkpoint.repo else by_hand(checkpoint)
    try:
        missing = {file.name for file in missing_files(checkpoint)}
    except ScircuitError as error:  # huggingface_hub is not installed
        missing, how = {file.name for file in checkpoint.needed}, str(error).rstrip(".")
    weights = [file for file in checkpoint.needed if file.name in {f.name for f in checkpoint.files}]
    apart = checkpoint.dictionaries if own is None else None
    needs = [_published_need("weights", checkpoint.name, weights, missing, how, checkpoint.licence)]
    if apart is not None:
        needs.append(
            _published_need("token dictionaries", apart.series, list(apart.files), missing, how, apart.licence)
        )
    elif own is not None:
        here = any(Path(own).rglob("token_dictionary_*.pkl")) if Path(own).is_dir() else False
        needs.append(Need("token dictionaries", own, here, "" if here else f"{own} holds no token_dictionary_*.pkl"))
    return needs


def _published_need(kind: str, name: str, listed: list[Any], missing: set[str], how: str, licence: str) -> Need:
    absent = [file for file in listed if file.name in missing]
    sizes = [file.bytes for file in listed]
    total = None if all(size is None for size in sizes) else sum(size or 0 for size in sizes)
    return Need(kind, name, not absent, how if absent else "", total, licence)


def _cells(path: str) -> Need:
    if path.startswith("scanpy:"):
        here = find_spec("scanpy") is not None
        return Need("cells", path, here, "" if here else "pip install 'scircuit[scanpy]'", licence="CC BY 4.0 (10x)")
    if path.startswith("census:"):
        here = find_spec("cellxgene_census") is not None
        how = "" if here else "pip install 'scircuit[census]'; the cells are fetched when they are first used"
        return Need("cells", path, here, how, licence="CC BY 4.0 (CELLxGENE Census)")
    return _file("cells", path, "cells.path", "")


def _file(kind: str, path: str, setting: str, user: str) -> Need:
    file, about = Path(path), known_files().get(Path(path).name, {})
    users = (user,) if user else ()
    if path and file.exists():
        size = _size(file) if file.is_dir() else file.stat().st_size  # a .zarr, or a folder with matrix.mtx
        return Need(kind, path, True, bytes=size, licence=about.get("licence", ""), used_by=users)
    how = about.get("how", f"put the file there, or correct {setting}") if path else f"name a file in {setting}"
    return Need(kind, path or "(none named)", False, how, about.get("bytes"), about.get("licence", ""), users)


@lru_cache(maxsize=1)
def known_files() -> dict[str, dict[str, Any]]:
    """Public data sets by file name: `title, bytes, licence, how`."""
    text = (files("scircuit.study") / "data" / "files.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["files"]


def _knowledge(kind: str, name: str, user: str) -> Need:
    if name == _PROGRAMS:
        return Need(kind, name, True, licence="MIT (ships with the package)", used_by=(user,))
    if is_path(name):
        return _file(kind, name, "gene_sets" if kind == "gene sets" else "disease.sources", user)
    sources = list_sources().set_index("name")
    if name not in sources.index:
        how = "there is no such source; see `scircuit knowledge list`"
        return Need(kind, name, False, how, used_by=(user,))
    found = sources.loc[name]
    here = found["state"] in ("cached", "packaged")
    how = f"run `scircuit knowledge fetch {name}`" if found["state"] == "to fetch" else str(found["note"])
    return Need(kind, name, bool(here), "" if here else how, licence=str(found["licence"]), used_by=(user,))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
