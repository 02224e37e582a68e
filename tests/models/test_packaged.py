"""The two models that ship with the package: small, whole, honest about themselves, usable on any human cells."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from scircuit._packaged import PACKAGED, model_folder, sae_folder
from scircuit.cells.tokens import tokenize
from scircuit.knowledge.gmt import packaged_programs
from scircuit.models.geneformer import Geneformer
from scircuit.models.load import load_model
from scircuit.models.scgpt import ScGPT
from scircuit.models.stream import residuals
from scircuit.sae.checkpoint import load_saes, read_manifest

CLASSES = {"geneformer-mini": Geneformer, "scgpt-mini": ScGPT}


@pytest.fixture(scope="module", params=PACKAGED)
def model(request):
    return load_model(request.param, device="cpu")


def test_they_are_small_models_of_the_real_classes(model):
    assert type(model) is CLASSES[model.name]
    assert 4 <= model.n_layers <= 6
    assert model.d_model == 128
    assert 512 <= model.tokenizer.max_length <= 1024
    assert (model_folder(model.name) / "model.safetensors").stat().st_size <= 8_000_000


def test_genes_have_ids_symbols_and_medians(model):
    genes = model.genes
    assert len(genes) == 6000
    assert genes["ensembl_id"].str.fullmatch(r"ENSG\d{11}").all()
    assert (genes["symbol"] != "").all()
    assert not genes[["ensembl_id", "symbol"]].apply(lambda column: column.duplicated().any()).any()
    if model.name == "geneformer-mini":
        assert (model.tokenizer.vocabulary.medians > 0).all()


def test_they_do_better_on_cells_they_never_saw_than_without_the_context(model):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scanpy

        cells = scanpy.datasets.pbmc68k_reduced()[:24].copy()
    store = tokenize(cells, model.tokenizer, counts="raw", scale="log1p")
    losses = []
    for shuffled in (False, True):
        generator, total, n = torch.Generator().manual_seed(0), 0.0, 0
        for batch in store.batches(8):
            masked = model.mask(batch, 0.15, generator)
            h = residuals(model, masked.batch, [model.n_layers - 1])[model.n_layers - 1]
            # The right answers against the state of another hidden gene, drawn at random.
            order = torch.randperm(len(masked.targets), generator=torch.Generator().manual_seed(1))
            answers = masked._replace(targets=masked.targets[order]) if shuffled else masked
            total += float(model.masked_loss(h, answers)) * len(masked.targets)
            n += len(masked.targets)
        losses.append(total / n)
    assert losses[0] < losses[1]


def test_dictionaries_ship_with_each_model(model):
    saes = load_saes(model.name, model_fingerprint=model.fingerprint, d_model=model.d_model, protocol=model.protocol)
    assert list(saes) == list(range(model.n_layers))
    manifest = read_manifest(sae_folder(model.name))
    card = (model_folder(model.name) / "MODEL_CARD.md").read_text()
    for layer, entry in manifest["layers"].items():
        found = entry["metrics"]
        assert found["explained_variance"] > 0.6
        assert found["loss_recovered"] > 0.5
        assert found["seed_stability"] > found["seed_stability_random"]
        assert f"| {layer} | {found['explained_variance']:.3f} | {found['loss_recovered']:.3f} |" in card
    assert [entry["source"] for entry in manifest["metadata"]["data"]] == ["training_cells.h5ad"], "no machine's path"
    assert sum(path.stat().st_size for path in model_folder(model.name).rglob("*")) <= 16_000_000


@pytest.mark.parametrize("name", PACKAGED)
def test_the_card_tells_sources_use_and_losses(name):
    card = (model_folder(name) / "MODEL_CARD.md").read_text()
    log = json.loads((model_folder(name) / "training.json").read_text())
    for words in ("PBMC 3k", "PBMC 5k", "Zheng et al. 2017", "CC BY 4.0", "not shipped", "Not for", "seed 0"):
        assert words in card
    losses = [point["held_out"] for point in log["curve"]]
    assert len(losses) >= 5
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < log["baseline_held_out"]
    for point in log["curve"]:
        assert f"| {point['step']} | {point['train']:.4f} | {point['held_out']:.4f} |" in card
    assert f"{log['baseline_held_out']:.4f}" in card
    assert log["tissue"]["loss"] < log["tissue"]["baseline"]
    assert f"gut cells, SCP1884, never trained on): {log['tissue']['loss']:.4f}" in card


def test_every_packaged_program_has_a_citation_and_genes_the_models_know():
    programs = packaged_programs()
    assert len(programs) >= 50
    text = (Path(str(files("scircuit") / "data")) / "programs.gmt").read_text().splitlines()
    for line in text:
        name, citation, *genes = line.split("\t")
        assert name
        assert citation.split()[-1].isdigit(), f"{name}: a citation ends with its year"
        assert len(set(genes)) == len(genes) >= 10
    known = set(load_model("geneformer-mini", device="cpu").genes["symbol"])
    blood = [genes for genes in programs.genes.values() if len(known & set(genes)) >= 5]
    assert len(blood) >= 50
    assert np.mean([len(known & set(genes)) / len(genes) for genes in programs.genes.values()]) > 0.5
