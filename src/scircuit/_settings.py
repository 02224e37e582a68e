"""Settings as data: frozen dataclasses whose fields say what they mean, how far they go and who sets them.

A room's settings are the section of a config's file: the docstring that follows a field is its documentation in
Python and in the file that `scircuit init` writes.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import Field, asdict, field, fields, is_dataclass
from math import inf
from typing import Any

from scircuit.errors import ScircuitError


def ranged(default: Any, least: float, most: float = inf) -> Any:
    """A field whose value lies in [least, most]; None is left alone."""
    return field(default=default, metadata={"range": (least, most)})


def derived(default: Any) -> Any:
    """A field that follows from the rest of a config, so that its section of the file does not have it."""
    return field(default=default, metadata={"derived": True})


def file_fields(kind: type) -> list[Field[Any]]:
    """The fields that a section's table has; what a config adds to the settings of a room stands before them."""
    rooms = [base for base in kind.__mro__ if is_dataclass(base) and base.__module__ != kind.__module__]
    taken = {f.name for base in rooms for f in fields(base)}
    return sorted((f for f in fields(kind) if "derived" not in f.metadata), key=lambda f: f.name in taken)


def as_table(settings: Any) -> dict[str, Any]:
    """The values of a section as its table has them, nested, JSON-able."""
    return {f.name: _plain(getattr(settings, f.name)) for f in file_fields(type(settings))}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return as_table(value)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return dict(value) if isinstance(value, dict) else value


def values_of(settings: Any, kind: type) -> dict[str, Any]:
    """Every value of `kind`, nested, JSON-able; without what a section that is a `kind` adds to it."""
    names = {f.name for f in fields(kind)}
    return {name: value for name, value in asdict(settings).items() if name in names}


def check_range(setting: Field[Any], value: Any, name: str) -> None:
    """Refuse a value outside the range of its field; `name` is what the sentence calls it."""
    least, most = setting.metadata.get("range", (None, None))
    if least is not None and value is not None and not least <= value <= most:
        allowed = f"be at least {least:g}" if most == inf else f"lie between {least:g} and {most:g}"
        raise ScircuitError(f"{name} = {value!r} is out of range; it must {allowed}.")


def check_ranges(settings: Any) -> None:
    """Refuse settings of which a value is out of its range."""
    for setting in fields(settings):
        check_range(setting, getattr(settings, setting.name), setting.name)


def documentation(kind: type) -> dict[str, str]:
    """The docstring that follows each field, on one line, those of inherited fields included."""
    return {name: text for base in reversed(kind.__mro__) if is_dataclass(base) for name, text in _docs_of(base)}


def _docs_of(kind: type) -> Iterator[tuple[str, str]]:
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    for name, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(name, ast.AnnAssign) and isinstance(name.target, ast.Name) and isinstance(text, ast.Expr):
            yield name.target.id, " ".join(ast.literal_eval(text.value).split())
