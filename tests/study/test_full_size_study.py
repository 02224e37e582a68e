"""The recipe at full size: both architectures with random weights in the published file layout, real token files."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from builders import SHARED, scgpt_weights
from scircuit.study.config import load_study
from scircuit.study.plan import plan_study
from scircuit.study.run import run_study
from scircuit.study.stages import status

pytestmark = pytest.mark.slow

STUDY = """
name = "Full size"
seed = 42
[defaults.model]
device = "cpu"
[defaults.cells]
path = "cells.h5ad"
min_match = 0.01
shares = { train = 0.3, catalogue = 0.25, discovery = 0.25, confirmation = 0.2 }
[defaults.sae]
k = 32
expansion = 4
n_steps = 2
batch_rows = 64
buffer_rows = 2000
quality_cells = 1
[defaults.features]
min_firings = 1
control_draws = 1
pair_cells = 2
[defaults.sources]
rule = "random"
n = 12
[defaults.trace]
n_cells = 4
n_random = 1
[defaults.edges]
min_effect_sd = "null"
max_q_specific = "null"
min_nonzero = 2
min_abs_d = 0.1
max_q = "null"
[defaults.confirmation]
n_cells = 2
max_sources = 1
[dictionaries.geneformer]
model = { source = "Geneformer-V2-316M" }
sae = { layers = [15, 17] }
[dictionaries.scgpt]
model = { source = "scGPT_human" }
sae = { layers = [9, 11] }
[[conditions]]
name = "geneformer"
dictionaries = "geneformer"
[[conditions]]
name = "scgpt"
dictionaries = "scgpt"
[compare]
draws = 20
paper_draws = 20
"""


def write_models(folder: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=20275, hidden_size=1152, num_hidden_layers=18, num_attention_heads=18, intermediate_size=4608,
        hidden_act="relu", layer_norm_eps=1e-12, max_position_embeddings=4096, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    geneformer = folder / "Geneformer-V2-316M"
    transformers.BertForMaskedLM(config).save_pretrained(geneformer)
    tokens = SHARED / "tokenizers"
    for file in tokens.glob("geneformer_*_gc104M.pkl"):
        (geneformer / file.name.removeprefix("geneformer_")).symlink_to(file)
    scgpt = folder / "scGPT_human"
    scgpt.mkdir()
    for name in ("vocab", "args"):
        (scgpt / f"{name}.json").symlink_to(tokens / f"scgpt_whole_human_{name}.json")
    torch.save(scgpt_weights(json.loads((scgpt / "args.json").read_text()), 60697), scgpt / "best_model.pt")


def test_both_models_at_full_size(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]):
    cells = ad.read_h5ad(shared_data / "scrna" / "pbmc3k_counts.h5ad")[:16].to_memory()
    expressed = np.argsort(-np.asarray(cells.X.sum(axis=0)).ravel(), kind="stable")[:300]
    cells[:, np.sort(expressed)].copy().write_h5ad(tmp_path / "cells.h5ad")
    write_models(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    study = load_study(tmp_path / "study.toml")
    plan = plan_study(study)
    assert all(need.present for need in plan.needs)
    run_study(study)
    found = status(study)
    assert (found["state"] == "done").all()
    with capsys.disabled():
        both = found[["stage", "planned_seconds", "seconds", "cpu_seconds"]]
        print(f"\n{both.to_string()}\n{both.iloc[:, 1:].sum()}")  # noqa: T201  what one runs this for
    manifest = json.loads((study.out / "conditions" / "geneformer" / "saes" / "manifest.json").read_text())
    assert set(manifest["layers"]) == {"15", "17"}
    for name, n_latents in (("geneformer", 4608), ("scgpt", 2048)):
        tests = pd.read_parquet(study.out / "conditions" / name / "trace" / "tests.parquet")
        assert (tests["n_targets"] == n_latents).all()
        # Latents of dictionaries that were hardly trained fire in few cells; those that do are felt downstream.
        assert tests["n_tests"].sum() > 0
    numbers = pd.read_parquet(study.out / "report" / "numbers.parquet").set_index(["number", "scope"])
    assert numbers.loc[("edges", "geneformer"), ["paper", "default"]].notna().all()
    assert (study.out / "report" / "index.html").stat().st_size > 100_000
