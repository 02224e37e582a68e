"""The commented TOML file that `scircuit init` writes: every field with its default and its documentation."""

import ast
import inspect
from dataclasses import fields, is_dataclass
from typing import Any

from scircuit import config
from scircuit.config import RunConfig


def template() -> str:
    """A TOML file with every field, its default and its documentation; what `scircuit init` writes."""
    lines: list[str] = []
    docs = _field_docs()
    top = RunConfig()
    for f in fields(RunConfig):
        value = getattr(top, f.name)
        if not is_dataclass(value):
            lines += [f"# {docs[RunConfig][f.name]}", f"{f.name} = {_toml(value)}", ""]
    for f in fields(RunConfig):
        section = getattr(top, f.name)
        if is_dataclass(section):
            lines += [f"[{f.name}]  # {(type(section).__doc__ or '').strip()}"]
            for inner in fields(section):
                value = getattr(section, inner.name)
                shown = f"{inner.name} = {_toml(value)}"
                if value is None or inner.metadata.get("tables"):  # tables of their own follow; [] would forbid them
                    shown = f"# {inner.name} = "
                lines += [f"# {docs[type(section)][inner.name]}", shown]
            lines.append("")
    return "\n".join(lines)


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


def _field_docs() -> dict[type, dict[str, str]]:
    """Docstrings that follow each field in `scircuit.config`, per class."""
    tree = ast.parse(inspect.getsource(config))
    out: dict[type, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            section = getattr(config, node.name)
            found = {name: text for base in section.__bases__ for name, text in out.get(base, {}).items()}
            for name, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(name, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[name.target.id] = " ".join(ast.literal_eval(text.value).split())  # type: ignore[union-attr]
            out[section] = found
    return out
