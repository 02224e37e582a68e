"""A whole adapter to copy: a small pre-norm encoder over ranked genes, behind scircuit's `FoundationModel`.

Replace the four marked parts by your model's own. `python docs/adapter_template.py` holds the result to everything that
the engines rely on; `model.source = "adapter_template.py:load"` in a config runs it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scircuit
from scircuit._io import sha256_of
from scircuit.cells.batch import Role, TokenBatch
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import Tokenizer
from scircuit.models.base import Masked
from scircuit.models.stack import ReadsCells, choose_device, choose_dtype, hash_weights


# 1. The network. Any module will do whose layers take the residual stream and return it.
class Block(nn.Module):
    """h + Attention(LN(h)), then h + MLP(LN(h)); `keep` is True where a key may be attended to."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.mlp = nn.Sequential(nn.Linear(d_model, 2 * d_model), nn.GELU(), nn.Linear(2 * d_model, d_model))

    def forward(self, h: Tensor, keep: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(h)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])
        h = h + self.out(context.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm2(h))


class MyEncoder(nn.Module):
    """Gene and position embeddings, blocks, and a decoder to the vocabulary."""

    def __init__(self, n_tokens: int, max_length: int, d_model: int, n_heads: int, n_layers: int) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(n_tokens, d_model), nn.Embedding(max_length, d_model)
        self.blocks = nn.ModuleList(Block(d_model, n_heads) for _ in range(n_layers))
        self.decoder = nn.Linear(d_model, n_tokens)


# 2. The adapter: enter at any layer, leave at any layer. A layer may use the residual and the batch, nothing else.
class MyModel(ReadsCells):
    """`ReadsCells` supplies `genes`, `protocol` and `batches` from the tokenizer."""

    def __init__(self, network: MyEncoder, tokenizer: Tokenizer, name: str, settings: dict[str, Any]) -> None:
        self.network = network.eval().requires_grad_(False)  # dropout off, no gradients
        self.tokenizer, self.name = tokenizer, name
        self.n_layers, self.d_model = len(network.blocks), network.word.embedding_dim
        # Everything that decides an output: SAEs are refused to a model with another fingerprint.
        weights = hash_weights(network.state_dict())
        self.fingerprint = sha256_of(name, weights, settings, tokenizer.fingerprint, str(self.dtype))

    @property
    def device(self) -> torch.device:
        return self.network.word.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.word.weight.dtype

    def embed(self, batch: TokenBatch) -> Tensor:
        """The residual before block 0, `[cell, position, d_model]`."""
        tokens = torch.from_numpy(batch.tokens).to(self.device)
        return self.network.word(tokens) + self.network.position.weight[: tokens.shape[1]]

    def layer(self, i: int, h: Tensor, batch: TokenBatch) -> Tensor:
        """The residual after block i, from the one before it."""
        if not 0 <= i < self.n_layers:
            raise scircuit.ScircuitError(f"{self.name} has no layer {i}; layers are 0 to {self.n_layers - 1}.")
        keep = torch.from_numpy(batch.role != Role.PAD).to(self.device)
        return self.network.blocks[i](h, keep)

    def mask(self, batch: TokenBatch, share: float, generator: torch.Generator) -> Masked:
        """Hide a share of the genes as in pre-training."""
        chosen = (torch.rand(batch.tokens.shape, generator=generator) < share).numpy() & batch.is_gene
        tokens = batch.tokens.copy()
        tokens[chosen] = self.tokenizer.vocabulary.special["<mask>"]
        masked = TokenBatch(tokens, batch.role, batch.gene, batch.cell)
        return Masked(masked, torch.from_numpy(chosen).nonzero(), torch.from_numpy(batch.tokens[chosen]))

    def masked_loss(self, h: Tensor, masked: Masked) -> Tensor:
        """The pre-training loss at the hidden positions, a scalar."""
        rows = h[masked.positions[:, 0], masked.positions[:, 1]]
        return F.cross_entropy(self.network.decoder(rows).float(), masked.targets.to(h.device))


# 3. The loader: called with load_model's arguments. Read your weights here; these are drawn at random.
def load(
    *,
    protocol: str = "official",
    dictionaries: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
) -> MyModel:
    """The model, on the device."""
    vocabulary = scircuit.load_model("geneformer-mini", device="cpu").tokenizer.vocabulary  # yours: read_token_table
    settings = {"max_length": 256, "d_model": 32, "n_heads": 4, "n_layers": 3}
    seed = (options or {}).get("seed", 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MyEncoder(vocabulary.size, **settings)
    tokenizer = RankValueTokenizer(vocabulary, settings["max_length"], protocol)
    network = network.to(device=choose_device(device), dtype=choose_dtype(dtype))
    return MyModel(network, tokenizer, "my-model", settings)


# 4. The reference: hidden states of the original implementation, computed without the adapter.
def reference(model: MyModel, batch: TokenBatch) -> list[Tensor]:
    """Each cell alone and unpadded, so that nothing of the adapter's masking is used."""
    states = [torch.zeros(*batch.tokens.shape, model.d_model) for _ in range(model.n_layers)]
    for row, length in enumerate(batch.lengths):
        tokens = torch.from_numpy(batch.tokens[row : row + 1, :length])
        h = model.network.word(tokens) + model.network.position(torch.arange(length))
        for i, block in enumerate(model.network.blocks):
            h = block(h, torch.ones(1, length, dtype=torch.bool))
            states[i][row, :length] = h[0]
    return states


def check() -> list[Any]:
    """Hold the adapter to everything that the engines rely on; raises at the first thing that is not so."""
    import anndata
    import numpy as np

    model = load(device="cpu")
    counts = np.random.default_rng(0).poisson(0.5, (4, 100)) + np.eye(4, 100, dtype=int)
    cells = anndata.AnnData(counts.astype(np.float32))
    cells.var_names = model.genes["ensembl_id"].head(100).to_numpy()
    batch = scircuit.tokenize(cells, model.tokenizer).batch(np.arange(4))
    variants = [load(device="cpu", protocol="paper"), load(device="cpu", options={"seed": 1})]
    return scircuit.check_adapter(model, batch, reference(model, batch), twin=load(device="cpu"), variants=variants)


if __name__ == "__main__":
    for found in check():
        print(f"{found.name}: {found.worst:.1g}")
