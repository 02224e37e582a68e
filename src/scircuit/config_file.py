"""From a TOML file to a validated `RunConfig`: types, ranges, profiles, paths relative to the file."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from scircuit._wording import did_you_mean
from scircuit.config import PROFILES, RunConfig
from scircuit.errors import ScircuitError

_RANGES: Mapping[str, tuple[float, float]] = {
    "cells.n": (1, inf),
    "cells.min_match": (0, 1),
    "sae.quality_cells": (1, inf),
    "sae.stability_seeds": (0, inf),
    "features.min_firings": (1, inf),
    "features.n_top_genes": (1, inf),
    "features.alpha": (0, 1),
    "features.min_overlap": (1, inf),
    "features.control_draws": (0, inf),
    "features.min_cosine": (0, 1),
    "features.pair_cells": (0, inf),
    "sources.n": (1, inf),
    "sources.min_frequency": (0, 1),
    "sources.min_top_genes": (0, inf),
    "trace.n_cells": (2, inf),
    "edges.min_consistency": (0, 1),
}
"""Least and largest values; what the settings of training, trace and edges check themselves is not repeated here."""


def load_config(path: str | Path) -> RunConfig:
    """Read and validate a TOML file; relative paths in it are relative to the file."""
    path = Path(path)
    return relative_to(parse_config(read_toml(path, "config", "scircuit init"), where=str(path)), path.parent)


def read_toml(path: Path, kind: str, command: str) -> dict[str, Any]:
    """Content of a TOML file; where there is none, the sentence names the `command` that writes one of its `kind`."""
    if not path.is_file():
        raise ScircuitError(f"The {kind} {path} does not exist; `{command} {path}` writes a commented one.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScircuitError(f"{path} is not valid TOML: {error}.") from None


def parse_config(content: Mapping[str, Any], where: str = "config") -> RunConfig:
    """A validated `RunConfig` from nested values.

    Raises
    ------
    ScircuitError
        On an unknown key (with the nearest known one), a wrong type, a number out of range, or an unknown profile.
    """
    profile = content.get("profile", "default")
    if profile not in PROFILES:
        raise ScircuitError(f"{where}: profile = {profile!r} is unknown; it may be {', '.join(PROFILES)}.")
    merged: dict[str, Any] = {}
    for layer in (PROFILES[profile], content):
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = {**merged[key], **value} if both else value
    config: RunConfig = build_section(RunConfig, merged, where)
    for name, (low, high) in _RANGES.items():
        section, key = name.split(".")
        value = getattr(getattr(config, section), key)
        if value is not None and not low <= value <= high:
            allowed = f"be at least {low:g}" if high == inf else f"lie between {low:g} and {high:g}"
            raise ScircuitError(f"{where}: {name} = {value!r} is out of range; it must {allowed}.")
    return config


def build_section(kind: Any, content: Any, where: str) -> Any:
    """A dataclass of values from a table of them; unknown keys and wrong types are refused with what is allowed."""
    if not isinstance(content, Mapping):
        raise ScircuitError(f"{where} must be a table of values, not {content!r}.")
    check_keys(content, [f.name for f in fields(kind)], where)
    hints = get_type_hints(kind)
    values = {}
    for key, value in content.items():
        inner = f"{where}: {key}"
        cast = build_section if is_dataclass(hints[key]) else _cast
        values[key] = cast(hints[key], value, inner)
    return kind(**values)


def check_keys(content: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    """Refuse a key that is not allowed, with the nearest one that is."""
    for key in content:
        if key not in allowed:
            hint = did_you_mean(key, allowed)
            raise ScircuitError(f"{where}: unknown key {key!r}; {hint}Allowed are {', '.join(allowed)}.")


def _cast(hint: Any, value: Any, where: str) -> Any:
    """The value as its field's type, or a refusal; lists become tuples, integers floats."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None or value == "null":
        if type(None) in options:
            return None
        raise ScircuitError(f"{where} cannot be null.")
    for option in options:
        origin = get_origin(option) or option
        if origin is tuple and isinstance(value, (list, tuple)):
            inner = get_args(option)[0]
            cast = build_section if is_dataclass(inner) else _cast
            return tuple(cast(inner, v, where) for v in value)
        if origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if origin is dict and isinstance(value, dict) and get_args(option)[1:] == (float,):
            return {key: _cast(float, v, f"{where}.{key}") for key, v in value.items()}
        if origin in (str, bool, dict) and isinstance(value, origin):
            return value
    names = " or ".join(getattr(get_origin(o) or o, "__name__", str(o)) for o in options if o is not type(None))
    raise ScircuitError(f"{where} = {value!r} is of the wrong type; {names} is needed.")


def relative_to(config: RunConfig, folder: Path) -> RunConfig:
    """Paths of the file, seen from the file's folder."""

    def place(value: str | None) -> str | None:
        if value and ".py:" in value:  # a function of the user's own, in a file
            file, _, function = value.rpartition(":")
            return f"{place(file)}:{function}"
        if not value or ":" in value:
            return value
        candidate = folder / value
        return str(candidate) if candidate.exists() else value

    sets = tuple(str(place(s)) for s in config.features.gene_sets)
    return replace(
        config,
        out=str(folder / config.out),
        model=replace(
            config.model, source=str(place(config.model.source)), dictionaries=place(config.model.dictionaries)
        ),
        cells=replace(config.cells, path=str(place(config.cells.path))),
        sae=replace(
            config.sae,
            path=place(config.sae.path),
            mix=tuple(replace(part, path=str(place(part.path))) for part in config.sae.mix),
        ),
        features=replace(config.features, gene_sets=sets),
    )
