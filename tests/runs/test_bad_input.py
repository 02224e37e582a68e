"""Each wrong input: exit code 2, one sentence that names the thing and the fix, nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy import sparse

from scircuit._io import read_json, write_json

Refusal = Callable[..., str]


def untouched(folder: Path) -> bool:
    """Nothing of a run was written, not even its folder."""
    return not (folder / "out").exists()


def with_values(cells: ad.AnnData, value: float) -> ad.AnnData:
    adata = cells.copy()
    dense = adata.X.toarray().astype(np.float32)
    dense[5, np.flatnonzero(dense[5])[0]] = value
    adata.X = sparse.csr_matrix(dense)
    return adata


def test_missing_checkpoint(project, geneformer_folder, refusal) -> None:
    folder = project(geneformer_folder, edit=lambda text: text.replace(str(geneformer_folder), "no/such/model"))
    said = refusal("run", folder / "run.toml")
    assert "no/such/model is no folder" in said
    assert "geneformer-mini" in said
    assert untouched(folder)


@pytest.mark.parametrize(("kind", "file"), [("geneformer", "model.safetensors"), ("scgpt", "best_model.pt")])
def test_truncated_checkpoint(project, request, tmp_path, refusal, kind: str, file: str) -> None:
    model = tmp_path / kind
    shutil.copytree(request.getfixturevalue(f"{kind}_folder"), model)
    data = (model / file).read_bytes()
    (model / file).write_bytes(data[: len(data) // 2])
    folder = project(model)
    assert file in refusal("run", folder / "run.toml")
    assert untouched(folder)


def test_checkpoint_without_a_weight(project, geneformer_folder, tmp_path, refusal) -> None:
    model = tmp_path / "partial"
    shutil.copytree(geneformer_folder, model)
    weights = load_file(model / "model.safetensors")
    name = next(n for n in weights if n.endswith("layer.1.attention.self.query.weight"))
    del weights[name]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    folder = project(model)
    assert "lacks the weight" in refusal("run", folder / "run.toml")
    assert untouched(folder)


def sae_project(project, model: Path, saes: Path) -> Path:
    return project(model, edit=lambda text: text.replace("[sae]", f'[sae]\npath = "{saes}"'))


def test_sae_of_another_model(project, geneformer_folder, finished, refusal) -> None:
    folder = sae_project(project, geneformer_folder, finished["scgpt"] / "out" / "saes")
    assert "were trained on another model" in refusal("run", folder / "run.toml")
    assert untouched(folder)


def test_sae_of_another_width(project, geneformer_folder, finished, tmp_path, refusal) -> None:
    from dataclasses import replace

    from scircuit.sae.base import LinearSAE
    from scircuit.sae.checkpoint import load_saes, save_saes

    manifest = read_json(finished["geneformer"] / "out" / "saes" / "manifest.json")
    saes = load_saes(finished["geneformer"] / "out" / "saes")
    narrow = {
        layer: LinearSAE(replace(sae.config, d_in=16), sae.W_enc[:16], sae.b_enc, sae.W_dec[:, :16], sae.b_dec[:16])
        for layer, sae in saes.items()
    }
    save_saes(
        tmp_path / "narrow", narrow, model="m", model_fingerprint=manifest["model"]["fingerprint"], protocol="official"
    )
    folder = sae_project(project, geneformer_folder, tmp_path / "narrow")
    said = refusal("run", folder / "run.toml")
    assert "width 16" in said
    assert "32" in said
    assert untouched(folder)


def test_sae_of_another_layer(project, geneformer_folder, finished, tmp_path, refusal) -> None:
    saes = tmp_path / "saes"
    shutil.copytree(finished["geneformer"] / "out" / "saes", saes)
    manifest = read_json(saes / "manifest.json")
    manifest["layers"]["0"], manifest["layers"]["1"] = manifest["layers"]["1"], manifest["layers"]["0"]
    write_json(saes / "manifest.json", manifest)
    folder = sae_project(project, geneformer_folder, saes)
    assert "holds an SAE of layer 1" in refusal("run", folder / "run.toml")
    del manifest["layers"]["3"]
    write_json(saes / "manifest.json", manifest)
    text = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(text.replace("[sae]\n", "[sae]\nlayers = [0, 1, 2, 3]\n"))
    assert "no SAE for layer 3" in refusal("run", folder / "run.toml")
    assert untouched(folder)


def test_cells_without_counts(project, geneformer_folder, cells, refusal) -> None:
    adata = ad.AnnData(obs=cells.obs.copy(), var=cells.var.copy())
    folder = project(geneformer_folder, adata)
    assert "no values in X" in refusal("run", folder / "run.toml")
    assert untouched(folder)


@pytest.mark.parametrize(
    ("prefix", "says"), [("ENSMUSG", "another species"), ("XYZ", "Only 0 genes of the model's vocabulary")]
)
def test_foreign_genes(project, geneformer_folder, cells, refusal, prefix: str, says: str) -> None:
    adata = cells.copy()
    adata.var_names = [f"{prefix}{i:011d}" for i in range(adata.n_vars)]
    folder = project(geneformer_folder, adata)
    assert says in refusal("run", folder / "run.toml")
    assert untouched(folder)


def test_mouse_symbols(project, geneformer_folder, cells, refusal) -> None:
    adata = cells.copy()
    adata.var_names = [f"Actb{chr(97 + i % 26)}{i}" for i in range(adata.n_vars)]
    folder = project(geneformer_folder, adata)
    said = refusal("run", folder / "run.toml")
    assert "look like mouse; map them to human orthologues first" in said
    assert untouched(folder)


@pytest.mark.parametrize(("value", "says"), [(np.nan, "NaN"), (-1.0, "negative"), (1.5, "non-integer")])
def test_wrong_counts(project, scgpt_folder, cells, refusal, value: float, says: str) -> None:
    folder = project(scgpt_folder, with_values(cells, value))
    said = refusal("run", folder / "run.toml")
    assert f"X holds {says}" in said
    assert "'cell5'" in said
    assert untouched(folder)


def test_empty_cells_are_dropped_and_counted(project, scgpt_folder, cells) -> None:
    from scircuit.config_file import load_config
    from scircuit.runs.stages import run

    adata = cells.copy()
    dense = adata.X.toarray()
    dense[[2, 9]] = 0
    adata.X = sparse.csr_matrix(dense)
    out = run(load_config(project(scgpt_folder, adata) / "run.toml"), until="tokenize").stage("tokens")
    record = read_json(out / "tokens.json")
    assert (record["n_cells"], record["n_empty"]) == (38, 2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[sae]\nexpantion = 2", "did you mean 'expansion'"),
        ("[sae]\nk = 'many'", "is of the wrong type"),
        ("[sae]\narchitecture = 'dense'", "topk"),
        ("[sources]\nrule = 'best'", "random_annotated"),
        ("[sources]\nlayers = [7]", "sources.layers names 7"),
        ("[sources]\nlayers = [3]", "must lie below layer 3"),
        ("[sources]\nn = 0", "sources.n = 0 is out of range; it must be at least 1"),
        ("[sae]\nk = 1000", "2 x 32 gives 64 latents; lower k"),
        ("[sae]\nlayers = [2, 9]", "layers are 0 to 3"),
        ("[sae]\nquality_cells = 0", "sae.quality_cells = 0 is out of range"),
        ("[trace]\ntargets = [9]", "trace.targets names 9; dictionaries are of layers 0, 1, 2, 3"),
        ("[trace]\nn_cells = -1", "trace.n_cells = -1 is out of range; it must be at least 2"),
        ("[trace]\nmemory = 'plenty'", "no amount of memory"),
        ("[model]\ndevice = 'gpu'", "it may be auto"),
        ("[model]\ndtype = 'int8'", "float32, bfloat16, float16"),
        ("[model]\nprotocol = 'offical'", "'official' or 'paper'"),
        ("[cells]\nn = -3", "cells.n = -3 is out of range"),
        ("[cells]\ncounts = 'layer:counts'", "it may be one of: X"),
        ("[features]\ngene_sets = []", "features.gene_sets is empty"),
        ("[features]\npair_cells = -1", "features.pair_cells = -1"),
        ("[edges]\nmin_consistency = 2.0", "edges.min_consistency = 2.0"),
        ("[trace]\nengine = 'fast'", "auto, exact, local"),
        ("[trace]\nunits = 'donor'", "trace.groups or trace.units names 'donor'; obs has kind"),
        ("[features]\ngene_sets = ['programms']", "programs"),
        ("[cells]\npath = 'none.h5ad'", "none.h5ad"),
        ("[cells]\npath = 'cells.h5ad'\nobs = ['donor']", "obs has kind"),
    ],
)
def test_wrong_settings(project, geneformer_folder, refusal, line: str, says: str) -> None:
    section, *values = line.split("\n")
    keys = tuple(v.split(" =")[0] + " =" for v in values)

    def edit(text: str) -> str:
        kept = [t for t in text.splitlines() if not t.startswith(keys)]
        return "\n".join(kept).replace(section, line)

    folder = project(geneformer_folder, edit=edit)
    assert says in refusal("run", folder / "run.toml")
    assert untouched(folder)


def test_a_threshold_above_the_usual_one_is_traced_for(project, geneformer_folder) -> None:
    from scircuit.config_file import load_config

    for text, retention in (("0.2", 0.2), ("0.01", 0.05), ('"null"', 0.05)):
        folder = project(geneformer_folder, edit=lambda t, text=text: t.replace('max_q = "null"', f"max_q = {text}"))
        assert load_config(folder / "run.toml").trace.retention == retention


def test_broken_toml_and_missing_config(tmp_path: Path, refusal) -> None:
    (tmp_path / "run.toml").write_text("name = ")
    assert "is not valid TOML" in refusal("run", tmp_path / "run.toml")
    assert "scircuit init" in refusal("run", tmp_path / "none.toml")


def test_a_demo_overwrites_nothing(finished, tmp_path: Path, refusal) -> None:
    """Neither a run, nor a folder of something else, nor a demo with another seed."""
    from scircuit.runs.demo import demo_config
    from scircuit.runs.run import Run

    run = finished["scgpt"] / "out"
    page = (run / "report" / "index.html").read_bytes()
    assert "holds something else than a demonstration" in refusal("demo", "--out", run)
    assert (run / "report" / "index.html").read_bytes() == page
    (tmp_path / "report").mkdir()
    assert "holds something else than a demonstration (report)" in refusal("demo", "--out", tmp_path)
    Run.open(demo_config("scgpt-mini", tmp_path / "demo", seed=1)).record()
    assert "holds a different run (seed is 1 there, 0 was asked)" in refusal("demo", "--out", tmp_path / "demo")
    assert [p.name for p in (tmp_path / "demo").iterdir()] == ["scgpt-mini"]


def test_another_run_in_the_folder(finished, refusal) -> None:
    folder = finished["scgpt"]
    other = folder / "other.toml"
    other.write_text((folder / "run.toml").read_text().replace("seed = 3", "seed = 5"))
    assert "holds a different run (seed is 3 there, 5 was asked)" in refusal("run", other)
