"""The page's script: the modules under `templates/js`, joined into one text that needs no file beside it."""

import re
from importlib.resources import files

_FOLDER = files("scircuit.report") / "templates" / "js"
_IMPORT = re.compile(r'^import \{ (.+) \} from "\./(.+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_MAIN = "main.js"


def script() -> str:
    """Every module as a function that gives what it exports, each after those that it imports from."""
    joined: dict[str, str] = {}
    _join(_MAIN, joined)
    return "\n".join(['"use strict";', "const modules = {};", *joined.values()])


def _join(name: str, joined: dict[str, str]) -> None:
    text = (_FOLDER / name).read_text(encoding="utf-8")
    for _, other in _IMPORT.findall(text):
        if other not in joined:
            _join(other, joined)
    given = ", ".join(known for _, known in _EXPORT.findall(text))
    text = _EXPORT.sub(r"\1", _IMPORT.sub(r'const { \1 } = modules["\2"];', text))
    joined[name] = f'modules["{name}"] = (() => {{\n{text}return {{ {given} }};\n}})();'
