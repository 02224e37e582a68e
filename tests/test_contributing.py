"""CONTRIBUTING.md, followed to the letter: its files put where it says, its tests run, and what they offer used."""

import re
import sys
from collections.abc import Iterator
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scircuit.analysis.registry import every_question
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.export.formats import formats
from scircuit.circuits.synthetic import planted_circuit
from scircuit.cli.app import app
from scircuit.models.load import adapters
from scircuit.report import write_report
from scircuit.report.blocks import slug

PAGE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
FILES = dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.M | re.S))


@pytest.fixture
def contributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files under a folder whose rooms are part of the package's, as if they lay in it."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    modules = [name.removeprefix("src/").removesuffix(".py").replace("/", ".") for name in FILES if "src/" in name]
    for room in {module.rpartition(".")[0] for module in modules}:
        place = tmp_path / "src" / room.replace(".", "/")
        monkeypatch.setattr(import_module(room), "__path__", [*import_module(room).__path__, str(place)])
    invalidate_caches()
    found = (every_question, formats, adapters)
    for offered in found:
        offered.cache_clear()
    yield tmp_path
    for module in modules:
        sys.modules.pop(module, None)
        vars(import_module(module.rpartition(".")[0])).pop(module.rpartition(".")[2], None)
    for offered in found:
        offered.cache_clear()


def small() -> Circuit:
    return planted_circuit(n_layers=3, n_latents=30, n_sources=5, seed=0).circuit


def test_each_recipe_is_one_file_and_one_test() -> None:
    assert [name.split("/")[0] for name in FILES] == ["src", "tests"] * 3


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("tests/")])
def test_the_tests_of_the_page_pass(contributed: Path, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    names: dict = {}
    exec(compile(FILES[name], name, "exec"), names)
    tests = [value for key, value in names.items() if key.startswith("test_")]
    assert tests
    for test in tests:
        wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
        test(**({"tmp_path": tmp_path_factory.mktemp("page")} if wanted else {}))


def test_a_question_of_one_file_is_asked_answered_and_drawn(contributed: Path) -> None:
    run = contributed / "run"
    small().write(run / "circuit")
    assert "How far down the model do edges reach?" in CliRunner().invoke(app, ["analyze", "list"]).output
    shown = CliRunner().invoke(app, ["analyze", "reach", str(run), "--option", "draws=50"])
    assert shown.exit_code == 0, repr(shown.exception)
    assert "reach: mean_distance" in shown.output
    page = write_report(run / "report", [Artefacts(run, "one")]).read_text(encoding="utf-8")
    assert "mean layers between the ends" in page
    assert "Bars: edges. n = " in page
    assert f"{slug('one')}-reach" in page, "the figure, whose marks are named after run and question"


def test_a_format_of_one_file_is_listed_and_written(contributed: Path) -> None:
    run = contributed / "run"
    small().write(run / "circuit")
    assert "Cytoscape: one line per edge" in CliRunner().invoke(app, ["export", str(run), "--format", "list"]).output
    shown = CliRunner().invoke(app, ["export", str(run), "--format", "sif", "--max-edges", "5"])
    assert shown.exit_code == 0, repr(shown.exception)
    assert len(Path(shown.output.strip()).read_text().splitlines()) == 5


def test_nothing_of_it_stays() -> None:
    assert "reach" not in every_question()
    assert "sif" not in formats()
    assert "Arrow" not in adapters()
