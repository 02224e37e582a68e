"""A model with planted circuits: which latent drives which, with what sign and by how much, is known.

The residual stream is cut into one slice of dimensions per layer; block l reads all slices and writes into its own
only, and the dictionary of layer l has one latent per dimension of slice l. A latent therefore drives another
exactly where a planted weight (or a chain of them) leads from it to the other, and by that weight, as long as no
ReLU is clipped, which the biases see to.
"""

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import nn

from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import tokenize
from scircuit.cells.vocabulary import Vocabulary
from scircuit.models.hooked import HookedModel
from scircuit.sae.base import SaeConfig
from scircuit.sae.topk import TopKSAE

N_LAYERS, WIDTH, N_GENES = 4, 6, 40
D_MODEL = N_LAYERS * WIDTH
# (layer, latent) -> (layer, latent): weight
PLANTED = {
    ((0, 0), (1, 2)): 0.8,
    ((0, 1), (1, 3)): -0.5,
    ((0, 0), (2, 1)): -0.6,
    ((1, 2), (2, 4)): 0.7,
    ((1, 3), (3, 5)): -0.9,
    ((2, 4), (3, 0)): 0.5,
}


class PlantedNet(nn.Module):
    """Embedding into slice 0, then residual blocks h + relu(h W + b)."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        table = torch.zeros(N_GENES + 1, D_MODEL)
        # Every latent of layer 0 fires on some genes only, with its own strength on each.
        table[1:, :WIDTH] = (0.5 + torch.rand(N_GENES, WIDTH, generator=g)) * (
            torch.rand(N_GENES, WIDTH, generator=g) < 0.5
        )
        self.embedding = nn.Embedding.from_pretrained(table, padding_idx=0)
        self.layers = nn.ModuleList(PlantedBlock(layer) for layer in range(N_LAYERS))

    def forward(self, tokens):
        h = self.embedding(tokens)
        for layer in self.layers:
            h = layer(h)
        return h


class PlantedBlock(nn.Module):
    def __init__(self, layer):
        super().__init__()
        weight, bias = torch.zeros(D_MODEL, D_MODEL), torch.zeros(D_MODEL)
        if layer > 0:
            # A floor under every latent of the slice, high enough that no planted inhibition reaches zero.
            bias[layer * WIDTH : (layer + 1) * WIDTH] = 5.0
        for (source_layer, source), (target_layer, target) in PLANTED:
            if target_layer == layer:
                value = PLANTED[(source_layer, source), (target_layer, target)]
                weight[source_layer * WIDTH + source, target_layer * WIDTH + target] = value
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, h):
        return h + torch.relu(h @ self.weight + self.bias)


def planted_model():
    """The model and one dictionary per layer."""
    genes = pd.DataFrame(
        {"ensembl_id": [f"ENSG{i:011d}" for i in range(N_GENES)], "symbol": [f"G{i}" for i in range(N_GENES)],
         "token": np.arange(1, N_GENES + 1)}
    )  # fmt: skip
    medians = np.random.default_rng(1).uniform(0.5, 2, N_GENES)
    tokenizer = RankValueTokenizer(Vocabulary(genes, {"<pad>": 0}, medians), 25)
    model = HookedModel(
        PlantedNet(), blocks="layers", call=lambda m, b: m(torch.from_numpy(b.tokens)), tokenizer=tokenizer,
        name="planted", d_model=D_MODEL,
    )  # fmt: skip
    saes = {}
    for layer in range(N_LAYERS):
        decoder = torch.zeros(WIDTH, D_MODEL)
        decoder[torch.arange(WIDTH), layer * WIDTH + torch.arange(WIDTH)] = 1.0
        config = SaeConfig("topk", D_MODEL, WIDTH, k=WIDTH, layer=layer)
        saes[layer] = TopKSAE(config, decoder.T.clone(), torch.zeros(WIDTH), decoder, torch.zeros(D_MODEL))
    return model, saes


def wired_model(paths):
    """The planted model with other weights, {((layer, latent), (layer, latent)): weight}, in float64."""
    model, saes = planted_model()
    with torch.no_grad():
        for layer, block in enumerate(model.module.layers):
            block.weight.zero_()
            for ((i, a), (j, b)), value in paths.items():
                if j == layer:
                    block.weight[i * WIDTH + a, j * WIDTH + b] = value
    model.module.double()
    return model, {layer: sae.double() for layer, sae in saes.items()}


def random_saes(model, n_latents, k):
    """Untrained dictionaries of unit directions for every layer: they fire everywhere, on nothing in particular."""
    saes = {}
    for layer in range(model.n_layers):
        g = torch.Generator().manual_seed(layer)
        decoder = torch.nn.functional.normalize(torch.randn(n_latents, model.d_model, generator=g), dim=1)
        config = SaeConfig("topk", model.d_model, n_latents, k=k, layer=layer)
        saes[layer] = TopKSAE(config, decoder.T.clone(), torch.zeros(n_latents), decoder, torch.zeros(model.d_model))
    return saes


def planted_cells(model, n, **obs):
    """Tokens of `n` random cells; `obs` columns are kept."""
    rng = np.random.default_rng(0)
    x = rng.poisson(1.0, (n, N_GENES)).astype(float)
    x[:, 0] += 1
    genes = pd.DataFrame(index=model.genes["ensembl_id"].to_numpy())
    table = pd.DataFrame(obs, index=[f"cell{i}" for i in range(n)])
    return tokenize(ad.AnnData(sparse.csr_matrix(x), obs=table, var=genes), model.tokenizer)


def total_effects():
    """Weight of every latent on every later one over all paths: what ablating one unit of it takes away."""
    direct = np.zeros((D_MODEL, D_MODEL))
    for ((i, a), (j, b)), value in PLANTED.items():
        direct[i * WIDTH + a, j * WIDTH + b] = value
    return np.linalg.inv(np.eye(D_MODEL) - direct) - np.eye(D_MODEL)
