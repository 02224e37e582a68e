"""What makes two configs the same run, wherever its files lie. No torch."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from scircuit import _lock
from scircuit._io import read_json
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError

RESOURCES = ("tokens", "sources_per_block", "memory", "accept_approximation")
"""Settings of the trace that may change between calls of one run; `trace.json` records those it ran with."""
_FILES = ("model.source", "model.dictionaries", "cells.path", "sae.path", "sae.mix", "features.gene_sets")


_BEFORE = {
    "model": {"weights": "trained"},
    "cells": {"counts_kind": "whole"},
    "sae": {"freeze": "none"},
    "sources": {"of": "loss"},
    "trace": {"decoy": "random", "special_tokens": False},
    "edges": {"min_effect_sd": None, "max_q_specific": None, "allow_for_skew": False},
}
"""What settings that version 0.1.0 did not have were in its runs: edges made one claim, decoys were random, and counts
had to be whole."""


def recorded(root: Path) -> dict[str, Any]:
    """The settings that a run's folder records, with those that its version of scircuit did not have yet."""
    found = dict(read_json(root / "config.json")["config"])
    return found | {section: then | found.get(section, {}) for section, then in _BEFORE.items()}


def refuse_another(config: RunConfig) -> None:
    """Refuse `out` where it holds a run of another config, or files that are no run at all."""
    root = Path(config.out)
    record = root / "config.json"
    if record.is_file():
        found = recorded(root)
        changed = _differences(found, settings(config))
        if changed:
            # The same files, seen from a folder that was moved together with them.
            was, now = read_json(record).get("places", {}), places(config)
            same = {name for name in now if name in was and was[name] == now[name]}
            changed = _differences(without_places(found, same), without_places(settings(config), same))
        if changed:
            raise ScircuitError(
                f"{root} holds a different run ({changed[0]}); choose another out folder or delete this one."
            )
    elif root.exists() and not (root.is_dir() and all(_unfinished(p) for p in root.iterdir())):
        raise ScircuitError(f"{root} exists and is no scircuit run; choose an empty or new folder for out.")


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

    found: dict[str, Any] = {name: attrgetter(name)(config) for name in _FILES} | {
        "sae.mix": tuple(part.path for part in config.sae.mix)
    }
    return {name: [*map(seen, value)] if isinstance(value, tuple) else seen(value) for name, value in found.items()}


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


def _differences(theirs: Any, mine: Any, where: str = "") -> list[str]:
    """Where two configs differ, as `section.key is A, asked B`."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        found = []
        for key in sorted(set(theirs) | set(mine)):
            found += _differences(theirs.get(key), mine.get(key), f"{where}.{key}" if where else key)
        return found
    return [] if theirs == mine else [f"{where} is {theirs!r} there, {mine!r} was asked"]


def _unfinished(path: Path) -> bool:
    """Whether this is the lock, or what a process that was killed while it wrote the first file left."""
    return path.name == _lock.NAME or (path.name.startswith(".") and path.suffix == ".tmp")
