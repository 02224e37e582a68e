"""What `scircuit study init` writes: commented studies, with every setting of a run explained at the end."""

from importlib.resources import files

from scircuit.config_file import section_lines
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
    # What is a comment already stays one: the file is a study as it stands.
    reference = (line if line.startswith("#") else f"# {line}".rstrip() for line in section_lines())
    return text + _REFERENCE + "\n".join(reference) + "\n"
