"""Faithfulness on the packaged models, and once at the size of a published one."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from planted import random_saes

from scircuit._packaged import PACKAGED
from scircuit.cells.batch import Role
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.circuits.variants import Variant
from scircuit.models.geneformer import Geneformer
from scircuit.models.load import load_model
from scircuit.sae.checkpoint import load_saes
from scircuit.tracing.probes.attribution import attributions
from scircuit.tracing.probes.behaviours import behaviour
from scircuit.tracing.probes.faithfulness import trace_variants
from scircuit.tracing.setup import Setup

NONE = np.zeros((0, 2), dtype=np.int64)


def strongest(found: pd.DataFrame, n: int) -> np.ndarray:
    order = found["attribution"].abs().sort_values(ascending=False).index
    return found.loc[order[:n], ["layer", "feature"]].to_numpy(np.int64)


def values(setup: Setup, of: str, variants: list[Variant]) -> np.ndarray:
    means = {layer: torch.zeros(sae.n_latents) for layer, sae in setup.saes.items()}
    table = trace_variants(setup, of, behaviour(of, setup, setup.cells), variants, means)
    return table["value"].to_numpy().reshape(len(variants), -1).mean(axis=1)


@pytest.mark.parametrize("name", PACKAGED)
def test_on_the_packaged_models_gradients_beat_random_latents(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scanpy

        cells = scanpy.datasets.pbmc68k_reduced()[:5].copy()
    model = load_model(name, device="cpu")
    setup = Setup(model, load_saes(name), tokenize(cells, model.tokenizer, counts="raw", scale="log1p"))
    means = {layer: torch.zeros(sae.n_latents) for layer, sae in setup.saes.items()}
    found = attributions(setup, behaviour("loss", setup, setup.cells), means)
    drawn = found.sample(n=600, random_state=0)[["layer", "feature"]].to_numpy(np.int64)
    every = found[["layer", "feature"]].to_numpy(np.int64)
    kept = [NONE, strongest(found, 600), drawn, every]
    model_loss, *losses = values(
        setup, "loss", [Variant("model", NONE), *(Variant("order", latents, ablation="zero") for latents in kept)]
    )
    nothing, best, random, whole = losses
    assert whole == pytest.approx(model_loss, rel=1e-5)
    assert nothing > model_loss
    assert abs(best - model_loss) < abs(random - model_loss)


@pytest.mark.slow
def test_full_size_geneformer_v2_316m() -> None:
    config = {
        "vocab_size": 20275, "hidden_size": 1152, "num_hidden_layers": 18, "num_attention_heads": 18,
        "intermediate_size": 4608, "hidden_act": "relu", "layer_norm_eps": 1e-12, "max_position_embeddings": 4096,
        "type_vocab_size": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    model = Geneformer(config, RankValueTokenizer(load_model("geneformer-mini").tokenizer.vocabulary, 4096), "random")
    model.seal("random")
    tokens = np.random.default_rng(0).permutation(np.arange(4, 6000))[:512]
    role, gene = np.full(512, Role.GENE, dtype=np.int8), np.arange(512, dtype=np.int32)
    cells = TokenStore(tokens, gene, role, None, np.array([0, 256, 512]), pd.DataFrame({"_row": [0, 1]}), (0, None), {})
    setup = Setup(model, random_saes(model, 4608, 32), cells)
    means = {layer: torch.zeros(4608) for layer in setup.saes}
    found = attributions(setup, behaviour("embedding", setup, cells), means, steps=2)
    assert len(found) == 18 * 4608
    assert np.isfinite(found["attribution"]).all()
    assert (found.groupby("layer")["attribution"].apply(np.count_nonzero) > 0).all()
    every = found[["layer", "feature"]].to_numpy(np.int64)
    kept = [NONE, strongest(found, 2000), every]
    clean, nothing, some, whole = values(
        setup, "embedding", [Variant("model", NONE), *(Variant("order", k, ablation="zero") for k in kept)]
    )
    assert clean == pytest.approx(1.0)
    assert whole == pytest.approx(1.0, abs=1e-4)
    assert nothing < 1
    assert np.isfinite(some)
