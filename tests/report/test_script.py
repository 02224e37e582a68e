"""The page's script is every module once, each after those that it needs."""

import re
from importlib.resources import files

from scircuit.report.script import script

MODULES = files("scircuit.report") / "templates" / "js"


def test_every_module_stands_once_after_those_it_imports() -> None:
    text = script()
    places = {path.name: text.index(f'modules["{path.name}"] = (') for path in MODULES.iterdir()}
    assert text.count("] = (() => {") == len(places)
    for path in MODULES.iterdir():
        for other in re.findall(r'from "\./(.+)";', path.read_text(encoding="utf-8")):
            assert places[other] < places[path.name]
    assert not re.search(r"^(import|export) ", text, re.MULTILINE)


def test_modules_are_small() -> None:
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 300 for path in MODULES.iterdir())
