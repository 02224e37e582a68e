"""What `scircuit study init` writes: commented studies, with every setting of a run explained at the end."""

from importlib.resources import files

from scircuit.config_template import template as run_template
from scircuit.errors import ScircuitError

NAMES = ("own", "paper")
_REFERENCE = """
# ---------------------------------------------------------------------------------------------------------------------
# Every setting of a run with its default, for [defaults.SECTION], [dictionaries.NAME.SECTION] (model, cells, sae) and
# [conditions.SECTION] (all but sae).
"""


def template(name: str) -> str:
    """The text of a study's file: `own`, or `paper` for the published one."""
    if name not in NAMES:
        raise ScircuitError(f"There is no study called {name!r}; it may be {', '.join(NAMES)}.")
    text = (files("scircuit.study") / "data" / f"{name}.toml").read_text(encoding="utf-8")
    return text + _REFERENCE + _reference()


def _reference() -> str:
    """The template of a run from its first section on, as comments."""
    lines = run_template().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("["))
    return "\n".join(line if line.startswith("#") else f"# {line}".rstrip() for line in lines[first:]) + "\n"
