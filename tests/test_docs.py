"""Documentation is running code: every Python block is executed, every TOML block parsed, every command looked up."""

import re
import runpy
import shutil
import tomllib
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from typer.main import get_command

import scircuit
from scircuit.cli.app import app
from scircuit.config_file import load_config, parse_config
from scircuit.runs.stages import run

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def execute(page: Path) -> dict:
    """All Python blocks of a page, one after another in one namespace; lines of an error are those of the page."""
    text, names = page.read_text(encoding="utf-8"), {"__name__": "docs"}
    for block in blocks(page, "python"):
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(page), "exec"), names)
    return names


@pytest.fixture
def blood(tmp_path: Path) -> Path:
    """`cells.h5ad`: 80 cells over genes that geneformer-mini knows."""
    genes = scircuit.load_model("geneformer-mini", device="cpu").genes.head(300)
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 1, 300), (80, 300)).astype(np.float32)
    counts[:, 0] += 1
    adata = ad.AnnData(counts, obs=pd.DataFrame({"cell_line": ["K562"] * 80}, index=[f"c{i}" for i in range(80)]))
    adata.var_names = genes["ensembl_id"].to_numpy()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path


SMALL = """
out = "my_run"
{model}
[cells]
path = "cells.h5ad"
[sae]
expansion = 1
k = 8
n_steps = 20
batch_rows = 64
buffer_rows = 2000
quality_cells = 4
[features]
control_draws = 0
pair_cells = 0
[sources]
rule = "random"
n = 1
min_frequency = 0
[trace]
n_cells = 10
"""


def small_run(folder: Path, model: str) -> None:
    (folder / "run.toml").write_text(SMALL.format(model=model))
    run(load_config(folder / "run.toml"))


def test_the_blocks_of_the_readme_run(blood: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(blood)
    names = execute(ROOT / "README.md")
    assert "<svg" in (blood / "circuit.svg").read_text()
    assert isinstance(names["run"].table("effects"), pd.DataFrame)
    assert names["latents"].n_obs == 80


def test_the_blocks_about_adapters_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "docs" / "adapter_template.py", tmp_path)
    torch.manual_seed(0)
    names = execute(ROOT / "docs" / "adapters.md")
    assert isinstance(names["hooked"], scircuit.HookedModel)


def test_the_template_passes_its_own_check(capsys: pytest.CaptureFixture) -> None:
    made = runpy.run_path(str(ROOT / "docs" / "adapter_template.py"), run_name="__main__")
    shown = capsys.readouterr().out.splitlines()
    checks = [line.rpartition(": ")[0] for line in shown]
    assert {"equals the reference", "the fingerprint names weights and protocol"} <= set(checks)
    assert shown[-1].startswith(f"{made['found'].name}: ")


def test_a_run_with_the_template_as_its_model(blood: Path) -> None:
    (blood / "sub").mkdir()
    shutil.copy(ROOT / "docs" / "adapter_template.py", blood / "sub")
    small_run(blood, '[model]\nsource = "sub/adapter_template.py:load"\ndevice = "cpu"')  # relative to the config
    assert scircuit.Circuit.read(blood / "my_run" / "circuit").provenance["model"]["name"] == "my-model"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere.py:load", "there is no file"),
        ("no_such_package.adapter:load", "No module named"),
        ("adapter.py:other", "has no function 'other'"),
        ("adapter.py:load", "returned a dict without name, n_layers"),
    ],
)
def test_loaders_that_are_none_are_refused(tmp_path: Path, monkeypatch, source: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter.py").write_text("def load(**_):\n    return {}\n")
    with pytest.raises(scircuit.ScircuitError, match=says):
        scircuit.load_model(source)


def test_that_a_loader_is_a_program_is_said_once(tmp_path: Path, caplog) -> None:
    file = tmp_path / "adapter.py"
    file.write_text("def load(**_):\n    return {}\n")
    for _ in range(2):
        with pytest.raises(scircuit.ScircuitError, match="returned a dict"):
            scircuit.load_model(f"{file}:load")
    said = [record.getMessage() for record in caplog.records if "is run as Python" in record.getMessage()]
    assert said == [f"{file} is run as Python, with your permissions; name only files that you trust"]


def test_the_loader_gets_what_load_model_was_given(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "docs" / "adapter_template.py", tmp_path)
    plain = scircuit.load_model("adapter_template.py:load", device="cpu")
    given = scircuit.load_model(
        "adapter_template.py:load", device="cpu", dtype="bfloat16", protocol="paper", options={"seed": 4}
    )
    assert (given.dtype, given.protocol) == (torch.bfloat16, "paper")
    assert not torch.equal(given.network.word.weight.float(), plain.network.word.weight)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_blocks_are_configs_and_commands_exist(page: Path) -> None:
    for block in blocks(page, "toml"):
        parse_config(tomllib.loads(block), where=page.name)
    known = get_command(app).commands
    for block in [*blocks(page, "bash"), *re.findall(r"`(scircuit [^`]+)`", page.read_text(encoding="utf-8"))]:
        for command, after in re.findall(r"^scircuit ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", block, flags=re.M):
            assert command in known, f"{page.name}: scircuit {command}"
            inner = getattr(known[command], "commands", None)
            assert inner is None or not after or after in inner, f"{page.name}: scircuit {command} {after}"


def test_links_between_pages_lead_somewhere() -> None:
    # Pages that the site writes from the code lie in no file; `make docs` checks that they are there.
    written = set(re.findall(r'^        "(\w+\.md)": ', (ROOT / "scripts" / "docs_pages.py").read_text(), flags=re.M))
    assert "questions.md" in written
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists() or target in written, f"{page.name} links to {target}"
