"""The public face: names, import cost, rooms without torch, help of every command."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import scircuit
from scircuit.cli.app import app

NAMES = [
    "Circuit", "EdgeRule", "FoundationModel", "HookedModel", "Intervention", "Latents", "Run", "RunConfig",
    "SaeTraining", "ScircuitError", "TokenBatch", "TokenStore", "TraceSettings", "__version__", "build_catalogue",
    "build_circuit", "check_adapter", "demo", "doctor", "enrich", "gene_rows", "label_features", "list_checkpoints",
    "load_config", "load_model", "load_saes", "load_study", "measure_quality", "packaged_programs", "parse_config",
    "pl", "plan_study", "read_gmt", "residuals", "run", "run_study", "save_saes", "select_sources", "tl", "tokenize",
    "trace", "train_saes", "write_report",
]  # fmt: skip
COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)
GROUPS = {
    "knowledge": ["list", "fetch", "add", "show"],
    "models": ["list", "fetch", "show"],
    "study": ["init", "plan", "run", "status"],
}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names_are_frozen() -> None:
    assert sorted(scircuit.__all__) == NAMES
    assert all(getattr(scircuit, name) is not None for name in NAMES)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'circus'"):
        _ = scircuit.circus


def test_import_is_light() -> None:
    # Of the processor, and the best of three: other work on the machine is not the package's fault.
    code = "import sys, time; import scircuit; print(time.process_time(), *sys.modules)"
    answers = [python(code).split() for _ in range(3)]
    loaded = answers[0][1:]
    assert min(float(seconds) for seconds, *_ in answers) < 1.0
    assert not {"torch", "pandas", "numpy", "anndata"} & set(loaded)


def test_rooms_without_torch() -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "for name in ('stats', 'circuits', 'analysis', 'knowledge', 'perturbation', 'report'):\n"
        "    room = importlib.import_module(f'scircuit.{name}')\n"
        "    for found in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "    print(name, 'torch' in sys.modules)"
    )
    rooms = dict(line.split() for line in python(code).splitlines())
    assert len(rooms) == 6
    assert set(rooms.values()) == {"False"}, rooms


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"scircuit {scircuit.__version__}"


def test_bare_call_lists_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    assert all(command in shown for command in COMMANDS)
    assert {
        "demo",
        "init",
        "run",
        "tokenize",
        "train-sae",
        "features",
        "trace",
        "report",
        "analyze",
        "compare-profiles",
        "export",
    } <= set(COMMANDS)


@pytest.mark.parametrize("group", [[], ["knowledge"], ["models"], ["study"]])
def test_lists_of_commands_are_whole_sentences(group: list[str]) -> None:
    shown = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80"}).output.split("Commands:")[1]
    assert "..." not in shown, "a first line fits beside its command"


@pytest.mark.parametrize(
    "command", [*COMMANDS, *(f"{group} {name}" for group, names in GROUPS.items() for name in names)]
)
def test_help_of(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    said = result.output.split("\n\n")[1] if "\n\n" in result.output else result.output
    assert len(said.strip()) > 30, "a command says what it does"
