"""Models, dictionaries and cells that several benchmarks trace."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scircuit.cells.batch import Role, TokenBatch
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import TokenStore
from scircuit.models.base import FoundationModel
from scircuit.models.geneformer import Geneformer
from scircuit.models.load import load_model
from scircuit.models.stack import BlockStack
from scircuit.sae.base import LinearSAE, SaeConfig
from scircuit.sae.topk import TopKSAE
from scircuit.tracing.engines.clean import CleanBatch

V2_316M = {
    "vocab_size": 20275, "hidden_size": 1152, "num_hidden_layers": 18, "num_attention_heads": 18,
    "intermediate_size": 4608, "hidden_act": "relu", "layer_norm_eps": 1e-12, "max_position_embeddings": 4096,
    "type_vocab_size": 2,
}  # fmt: skip


def v2_316m(device: str = "cpu", n_layers: int = 18) -> Geneformer:
    """Geneformer V2-316M with random weights, or its first layers: time does not depend on the weights."""
    torch.manual_seed(0)
    vocabulary = load_model("geneformer-mini", device="cpu").tokenizer.vocabulary
    config = {**V2_316M, "num_hidden_layers": n_layers}
    model = Geneformer(config, RankValueTokenizer(vocabulary, 4096), "v2-316m-random").to(device)
    model.seal("random")
    return model


def random_cells(n_cells: int, length: int, vocab_size: int) -> TokenBatch:
    """Cells of `length` different genes in random order."""
    rng = np.random.default_rng(0)
    tokens = np.stack([rng.permutation(np.arange(4, vocab_size))[:length] for _ in range(n_cells)])
    role = np.full(tokens.shape, Role.GENE, dtype=np.int8)
    return TokenBatch(tokens, role, np.zeros(tokens.shape, dtype=np.int32), np.arange(n_cells))


def as_store(batch: TokenBatch) -> TokenStore:
    """Cells of one length as a store."""
    n, length = batch.tokens.shape
    return TokenStore(
        batch.tokens.ravel(), batch.gene.ravel(), batch.role.ravel(), None, np.arange(n + 1) * length,
        pd.DataFrame({"_row": np.arange(n)}), (0, None), {},
    )  # fmt: skip


def random_sae(layer: int, d: int, k: int, mean: Tensor | None = None, expansion: int = 4) -> TopKSAE:
    """Random unit directions around `mean`, which training would have found; the latents then fire evenly."""
    g = torch.Generator().manual_seed(layer)
    n = expansion * d
    W = torch.nn.functional.normalize(torch.randn(n, d, generator=g), dim=1)
    config = SaeConfig("topk", d, n, k=k, layer=layer)
    return TopKSAE(config, W.T.clone(), torch.zeros(n), W, torch.zeros(d), None if mean is None else mean.cpu())


def live_latents(clean: CleanBatch) -> list[int]:
    """Latents that fire in the first cell, ascending."""
    latents = clean.latents[0]
    return [int(f) for f in latents.indices[latents.values > 0].unique()]


@torch.inference_mode()
def centred_saes(model: BlockStack, batch: TokenBatch, k: int, expansion: int = 4) -> dict[int, TopKSAE]:
    """`random_sae` of every layer, centred on the batch's own residuals."""
    h, saes = model.embed(batch), {}
    for layer in range(model.n_layers):
        h = model.layer(layer, h, batch)
        saes[layer] = random_sae(layer, model.d_model, k, h.flatten(0, 1).mean(dim=0), expansion).to(model.device)
    return saes


def trained(model: str, folder: Path) -> tuple[FoundationModel, dict[int, LinearSAE], TokenStore]:
    """A packaged model, the dictionaries that the demonstration trains for it, and cells it did not train on."""
    from scircuit.runs.demo import demo_config
    from scircuit.runs.inputs import open_model, open_saes
    from scircuit.runs.stages import run
    from scircuit.runs.trace import traced_cells

    config = demo_config(model, folder)
    config = replace(config, trace=replace(config.trace, n_cells=None))
    done = run(config, until="train-sae")
    opened = open_model(config)
    store = TokenStore.read(done.stage("tokens"))
    return opened, open_saes(done.stage("saes"), opened), traced_cells(store, config)
