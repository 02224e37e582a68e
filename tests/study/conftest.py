"""A study small enough for a test: two tiny random models, three conditions, every stage at its real code path."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

STUDY = """
name = "Tiny"
out = "out"
seed = 3
[defaults.model]
device = "cpu"
[defaults.cells]
path = "cells.h5ad"
min_match = 0.1
obs = ["kind"]
shares = {{ train = 0.3, catalogue = 0.2, discovery = 0.3, confirmation = 0.2 }}
[defaults.sae]
expansion = 2
k = 6
n_steps = 20
batch_rows = 64
buffer_rows = 2000
quality_cells = 4
[defaults.features]
gene_sets = ["sets.gmt"]
min_firings = 2
min_overlap = 2
alpha = 0.5
control_draws = 2
pair_cells = 6
[defaults.sources]
rule = "random"
n = 3
[defaults.trace]
groups = ["kind"]
n_cells = 10
cells_per_block = 4
n_random = 1
[defaults.edges]
min_abs_d = 0.4
min_nonzero = 4
max_q = "null"
min_effect_sd = "null"
max_q_specific = "null"
[defaults.confirmation]
n_cells = 6
[dictionaries.gf]
model = {{ source = "{geneformer}" }}
[dictionaries.gpt]
model = {{ source = "{scgpt}" }}
[[conditions]]
name = "all"
group = "Geneformer"
dictionaries = "gf"
published = "A"
[[conditions]]
name = "some"
group = "Geneformer"
dictionaries = "gf"
sources = {{ layers = [0] }}
[[conditions]]
name = "gpt"
group = "scGPT"
dictionaries = "gpt"
[compare]
draws = 20
paper_draws = 20
[disease]
sources = ["diseases.gmt"]
[perturbation]
screen = "screen.h5ad"
perturbation = "gene"
control = "non-targeting"
min_cells = 10
conditions = ["some"]
"""

Study = Callable[..., Path]


def screen() -> ad.AnnData:
    """Counts of 60 genes in controls and twelve knock-downs, each of which also lowers the gene after its own."""
    rng = np.random.default_rng(5)
    genes = [f"GENE{g}" for g in range(60)]
    labels = np.repeat(["non-targeting", *genes[:12]], [60, *[15] * 12])
    mean = np.full((len(labels), 60), 8.0)
    for row, label in enumerate(labels):
        if label != "non-targeting":
            mean[row, [genes.index(label), genes.index(label) + 1]] = 1.0
    obs = pd.DataFrame({"gene": pd.Categorical(labels)}, index=[f"cell{i}" for i in range(len(labels))])
    return ad.AnnData(rng.poisson(mean).astype(np.float32), obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture(scope="session")
def study_folder(
    tmp_path_factory: pytest.TempPathFactory, cells: ad.AnnData, geneformer_folder: Path, scgpt_folder: Path
) -> Study:
    """`study_folder(edit)` writes a folder with cells, gene sets and study.toml; `edit` changes the text."""

    def make(edit: Callable[[str], str] = str) -> Path:
        folder = tmp_path_factory.mktemp("study")
        every = ad.concat([cells, cells, cells], index_unique="-")
        every.obs["kind"] = every.obs["kind"].astype("category")
        every.write_h5ad(folder / "cells.h5ad")
        sets = [f"set{i}\tmade up\t" + "\t".join(f"GENE{g}" for g in range(4 * i, 4 * i + 12)) for i in range(12)]
        (folder / "sets.gmt").write_text("\n".join(sets) + "\n")
        ill = [f"disease{i}\t\t" + "\t".join(f"GENE{g}" for g in range(i, 60, 5)) for i in range(2)]
        (folder / "diseases.gmt").write_text("\n".join(ill) + "\n")
        screen().write_h5ad(folder / "screen.h5ad")
        text = STUDY.format(geneformer=geneformer_folder, scgpt=scgpt_folder)
        (folder / "study.toml").write_text(edit(text))
        return folder

    return make


@pytest.fixture(scope="session")
def finished_study(study_folder: Study) -> Path:
    """Folder of a finished study, planned before it ran."""
    from scircuit.study.config import load_study
    from scircuit.study.plan import plan_study
    from scircuit.study.run import run_study

    folder = study_folder()
    study = load_study(folder / "study.toml")
    plan_study(study)
    run_study(study)
    return folder
