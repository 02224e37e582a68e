"""A config as a TOML file: read, validated, with paths relative to it; and the commented one that `init` writes."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from scircuit._settings import check_range, documentation, file_fields
from scircuit._wording import did_you_mean
from scircuit.config import PROFILES, RunConfig
from scircuit.errors import ScircuitError

SECTIONS = tuple(f.name for f in file_fields(RunConfig) if is_dataclass(f.default_factory))
"""Names of a run's tables, in the order of the template."""


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
    return build(RunConfig, merged(check_profile(content.get("profile", "default"), where), content), where)


def check_profile(name: Any, where: str) -> Mapping[str, Any]:
    """The values of a profile; an unknown one is refused."""
    if name not in PROFILES:
        raise ScircuitError(f"{where}: profile = {name!r} is unknown; it may be {', '.join(PROFILES)}.")
    return PROFILES[name]


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over each other, section by section: the last to name a value wins."""
    out: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
            out[key] = {**out[key], **value} if both else value
    return out


def build(kind: Any, content: Any, where: str, name: str = "") -> Any:
    """A dataclass of values from a table; unknown keys, wrong types and values out of range are refused by name.

    `name` is the table's own, such as `sae` or `trace`; empty for the whole file `where`.
    """
    here = f"{where}: {name}" if name else where
    if not isinstance(content, Mapping):
        raise ScircuitError(f"{here} must be a table of values, not {content!r}.")
    known = {f.name: f for f in file_fields(kind)}
    check_keys(content, list(known), here)
    hints = get_type_hints(kind)
    values = {}
    for key, value in content.items():
        inner = f"{name}.{key}" if name else key
        if is_dataclass(hints[key]):
            values[key] = build(hints[key], value, where, inner)
        else:
            values[key] = _cast(hints[key], value, where, inner)
            check_range(known[key], values[key], f"{where}: {inner}")
    try:
        return kind(**values)
    except ScircuitError as error:
        raise ScircuitError(f"{here}: {error}") from None


def check_keys(content: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    """Refuse a key that is not allowed, with the nearest one that is."""
    for key in content:
        if key not in allowed:
            hint = did_you_mean(key, allowed)
            raise ScircuitError(f"{where}: unknown key {key!r}; {hint}Allowed are {', '.join(allowed)}.")


def _cast(hint: Any, value: Any, where: str, name: str) -> Any:
    """The value as its field's type, or a refusal; lists become tuples, integers floats."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None or value == "null":
        if type(None) in options:
            return None
        raise ScircuitError(f"{where}: {name} cannot be null.")
    for option in options:
        origin = get_origin(option) or option
        if origin is tuple and isinstance(value, (list, tuple)):
            inner = get_args(option)[0]
            cast = build if is_dataclass(inner) else _cast
            return tuple(cast(inner, v, where, f"{name}[{i}]") for i, v in enumerate(value))
        if origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if origin is dict and isinstance(value, dict) and get_args(option)[1:] == (float,):
            return {key: _cast(float, v, where, f"{name}.{key}") for key, v in value.items()}
        if origin in (str, bool, dict) and isinstance(value, origin):
            return value
    names = " or ".join(getattr(get_origin(o) or o, "__name__", str(o)) for o in options if o is not type(None))
    raise ScircuitError(f"{where}: {name} = {value!r} is of the wrong type; {names} is needed.")


def place(value: str, folder: Path) -> str:
    """A path of a file, seen from the folder of the file, where there is such a path; else as it stands."""
    if ".py:" in value:  # a function of the user's own, in a file
        file, _, function = value.rpartition(":")
        return f"{place(file, folder)}:{function}"
    there = value and ":" not in value and (folder / value).exists()
    return str(folder / value) if there else value


def relative_to(config: RunConfig, folder: Path) -> RunConfig:
    """Paths of the file, seen from the file's folder."""

    def placed(part: Any, *names: str) -> Any:
        """The section with these fields placed, one path or several."""
        found = {name: value for name in names if (value := getattr(part, name)) is not None}
        return replace(
            part,
            **{
                n: place(v, folder) if isinstance(v, str) else tuple(place(w, folder) for w in v)
                for n, v in found.items()
            },
        )

    return replace(
        config,
        out=str(folder / config.out),
        model=placed(config.model, "source", "dictionaries"),
        cells=placed(config.cells, "path"),
        sae=replace(placed(config.sae, "path"), mix=tuple(placed(part, "path") for part in config.sae.mix)),
        features=placed(config.features, "gene_sets"),
    )


def template() -> str:
    """A TOML file with every field, its default and its documentation; what `scircuit init` writes."""
    docs, top = documentation(RunConfig), RunConfig()
    return "\n".join(
        [
            *(f"# {docs[name]}\n{name} = {_toml(getattr(top, name))}\n" for name in docs),
            *section_lines(),
        ]
    )


def section_lines() -> Iterator[str]:
    """Every section of the template, line by line."""
    top = RunConfig()
    for name in SECTIONS:
        section = getattr(top, name)
        yield f"[{name}]  # {(type(section).__doc__ or '').strip().splitlines()[0]}"
        yield from _commented(section)
        yield ""


def _commented(section: Any) -> Iterator[str]:
    docs = documentation(type(section))
    for f in file_fields(type(section)):
        value = getattr(section, f.name)
        left_out = value is None or f.metadata.get("tables")  # tables of their own follow; [] would forbid them
        yield f"# {docs[f.name]}"
        yield f"# {f.name} = " if left_out else f"{f.name} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return str(value)
