"""A run small enough for a test: random tiny models, 40 cells of 60 genes, gene sets over them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import pytest

from scircuit.config import RunConfig
from scircuit.config_file import load_config

SETTINGS = """
name = "{name}"
out = "out"
seed = 3
[model]
source = "{model}"
device = "cpu"
[cells]
path = "cells.h5ad"
min_match = 0.1
obs = ["kind"]
shares = {{train = 0.3, catalogue = 0.2, discovery = 0.3, confirmation = 0.2}}
[sae]
expansion = 2
k = 6
n_steps = 40
batch_rows = 64
buffer_rows = 2000
quality_cells = 8
[features]
gene_sets = ["sets.gmt"]
min_firings = 2
min_overlap = 2
[sources]
rule = "random"
n = 4
[trace]
groups = ["kind"]
cells_per_block = 8
n_random = 1
[edges]
min_abs_d = 0.4
min_nonzero = 5
max_q = "null"
min_effect_sd = "null"
max_q_specific = "null"
"""

Project = Callable[..., Path]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, cells: ad.AnnData) -> Project:
    """`project(model_folder, *extra_lines, adata=...)` writes a folder with cells, gene sets and run.toml."""

    def make(model: Path, adata: ad.AnnData | None = None, edit: Callable[[str], str] = str) -> Path:
        folder = tmp_path_factory.mktemp("project")
        (cells if adata is None else adata).copy().write_h5ad(folder / "cells.h5ad")
        sets = [f"set{i}\tmade up\t" + "\t".join(f"GENE{g}" for g in range(4 * i, 4 * i + 12)) for i in range(12)]
        (folder / "sets.gmt").write_text("\n".join(sets) + "\n")
        (folder / "run.toml").write_text(edit(SETTINGS.format(name=model.name, model=model)))
        return folder

    return make


def config_of(folder: Path) -> RunConfig:
    return load_config(folder / "run.toml")


@pytest.fixture(scope="session")
def finished(project: Project, geneformer_folder: Path, scgpt_folder: Path) -> dict[str, Path]:
    """Both tiny models run to the report; project folder by model."""
    from scircuit.runs.stages import run

    folders: dict[str, Any] = {}
    for name, model in (("geneformer", geneformer_folder), ("scgpt", scgpt_folder)):
        folders[name] = project(model)
        run(config_of(folders[name]))
    return folders


@pytest.fixture
def finished_copy(finished: dict[str, Path], tmp_path: Path) -> Path:
    """The finished Geneformer run in a folder that a test may write to."""
    shutil.copytree(finished["geneformer"] / "out", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`refusal(*arguments)` runs the command line and returns its one sentence."""
    from scircuit.cli.app import main

    def call(*arguments: object, code: int = 2) -> str:
        monkeypatch.setattr("sys.argv", ["scircuit", "--quiet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scircuit: ")]
        assert ended.value.code == code
        assert len(lines) == 1
        assert "Traceback" not in lines[0]
        return lines[0]

    return call
