"""A transformer whose circuits are planted by hand, so that what a trace should find is known.

Each latent is a direction of its own, all orthogonal to each other and to the vector of ones. Genes carry the latents
at fixed strengths. Drives lead from source latents to target latents through a hidden unit of a block's MLP or through
its uniform attention; a large ballast direction keeps the normalisation near the identity, yet every edit rescales
every latent a little: that is the nuisance from which a method must tell the drives. Nothing is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from scircuit._io import sha256_of
from scircuit.cells.batch import Role, TokenBatch
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.cells.vocabulary import Vocabulary
from scircuit.errors import ScircuitError
from scircuit.models.stack import BlockStack, ReadsCells, hash_weights
from scircuit.sae.base import SaeConfig
from scircuit.sae.topk import TopKSAE

N_LAYERS, N_GENES, N_LATENTS = 3, 120, 40
"""The first half of the latents are sources, the other half targets; genes carry both."""
_THRESHOLD, _CONTEXT, _PERIOD = 0.05, 4.0, 11
"""Level below which a latent is silent; strength of a drive through attention, which sees the mean over positions only;
positions after which the strength of a gene repeats."""
NORMS = ("post", "pre")


@dataclass(frozen=True)
class Drive:
    """Source latent of layer `block - 1` to target latent of layer `block`, by `weight`, through `path`."""

    block: int
    source: int
    target: int
    weight: float
    path: str


@dataclass(frozen=True)
class Planted:
    """A model with planted circuits."""

    model: Any
    """Three blocks; post-norm ones are a `BlockStack`, so that both engines run on them."""
    saes: Mapping[int, TopKSAE]
    """Per layer the dictionary of the true latents."""
    drives: tuple[Drive, ...]

    def cells(self, n: int, seed: int = 0) -> TokenStore:
        """Tokens of `n` random cells."""
        rng = np.random.default_rng([seed, 1])
        counts = rng.poisson(0.35, (n, N_GENES)) * rng.integers(1, 20, (n, N_GENES))
        counts[:, 0] += 1
        genes = pd.DataFrame(index=self.model.genes["ensembl_id"].to_numpy())
        obs = pd.DataFrame(index=[f"cell{i}" for i in range(n)])
        return tokenize(ad.AnnData(counts.astype(np.float32), obs=obs, var=genes), self.model.tokenizer)

    def drives_between(self, source_layer: int, target_layer: int) -> np.ndarray:
        """Whether a chain of drives, or the latent's own passing on, leads from s to t: bool `[source, target]`."""
        reached = np.eye(N_LATENTS, dtype=bool)
        for block in range(source_layer + 1, target_layer + 1):
            step = np.eye(N_LATENTS, dtype=bool)
            for drive in self.drives:
                if drive.block == block:
                    step[drive.source, drive.target] = True
            reached = (reached.astype(int) @ step.astype(int)) > 0
        return reached


def planted(width: int, norm: str = "post", seed: int = 0) -> Planted:
    """A planted model of a residual width."""
    if norm not in NORMS:
        raise ScircuitError(f"norm={norm!r} is unknown; it may be {', '.join(NORMS)}.")
    if width < N_LATENTS + 2:
        raise ScircuitError(f"width={width} has no room for {N_LATENTS} latents; give at least {N_LATENTS + 2}.")
    drives = _drives(seed)
    basis = _basis(width, seed)
    model = (_PostNorm if norm == "post" else _PreNorm)(basis, drives, seed)
    return Planted(model, {layer: _dictionary(basis, layer) for layer in range(N_LAYERS)}, drives)


def _drives(seed: int) -> tuple[Drive, ...]:
    """Two targets for each of eight sources, per block, 60 % of them through the MLP."""
    rng = np.random.default_rng([seed, 2])
    half, found = N_LATENTS // 2, []
    for block in range(1, N_LAYERS):
        for source in rng.permutation(half)[:8]:
            for target in rng.choice(np.arange(half, N_LATENTS), 2, replace=False):
                weight = float(rng.choice([-1, 1]) * rng.uniform(0.3, 1.0))
                path = "mlp" if rng.random() < 0.6 else "attention"
                found.append(Drive(block, int(source), int(target), weight, path))
    return tuple(found)


def _basis(width: int, seed: int) -> Tensor:
    """Orthonormal rows `[N_LATENTS + 1, width]`, orthogonal to the ones; the last is the ballast."""
    rng = np.random.default_rng([seed, 3])
    columns = np.column_stack([np.ones(width), rng.standard_normal((width, N_LATENTS + 1))])
    return torch.from_numpy(np.linalg.qr(columns)[0].T[1:].copy()).float()


def _tokenizer(seed: int) -> RankValueTokenizer:
    genes = pd.DataFrame(
        {
            "ensembl_id": [f"ENSG{i:011d}" for i in range(N_GENES)],
            "symbol": [f"G{i}" for i in range(N_GENES)],
            "token": np.arange(1, N_GENES + 1),
        }
    )
    medians = np.random.default_rng([seed, 4]).uniform(0.5, 2, N_GENES)
    return RankValueTokenizer(Vocabulary(genes, {"<pad>": 0}, medians), N_GENES)


def _dictionary(basis: Tensor, layer: int) -> TopKSAE:
    rows = basis[:N_LATENTS]
    config = SaeConfig("topk", basis.shape[1], N_LATENTS, k=N_LATENTS, layer=layer)
    level = torch.full((N_LATENTS,), -_THRESHOLD)
    return TopKSAE(config, rows.T.clone(), level, rows.clone(), torch.zeros(basis.shape[1]))


@dataclass(frozen=True)
class _Embedding:
    """Strength of every latent at every gene, and what a position makes of it."""

    basis: Tensor = field(repr=False)
    seed: int

    def __call__(self, tokens: Tensor) -> Tensor:
        rng = np.random.default_rng([self.seed, 5])
        half, shape = N_LATENTS // 2, (N_GENES + 1, N_LATENTS // 2)
        strength = np.zeros((N_GENES + 1, N_LATENTS))
        strength[:, :half] = (rng.random(shape) < 0.15) * (0.4 + rng.random(shape))
        strength[:, half:] = (rng.random(shape) < 0.3) * (0.8 + rng.random(shape))
        jitter = 0.6 + 0.8 * rng.random((N_GENES + 1, _PERIOD, N_LATENTS))
        table = torch.from_numpy(strength[:, None] * jitter).float()
        place = torch.arange(tokens.shape[1]).expand_as(tokens) % _PERIOD
        h = table[tokens, place] @ self.basis[:N_LATENTS]
        return h + self.basis.shape[1] ** 0.5 * self.basis[N_LATENTS]


def _mixing(basis: Tensor, drives: tuple[Drive, ...], block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Value map of the attention `[width, width]`, and the MLP's `up` `[unit, width]` and `down` `[width, unit]`."""
    mine = [drive for drive in drives if drive.block == block]
    value = torch.zeros(basis.shape[1], basis.shape[1])
    hidden = [drive for drive in mine if drive.path == "mlp"]
    for drive in mine:
        if drive.path == "attention":
            value += _CONTEXT * drive.weight * torch.outer(basis[drive.target], basis[drive.source])
    up = torch.stack([basis[d.source] for d in hidden]) if hidden else torch.zeros(1, basis.shape[1])
    down = torch.stack([d.weight * basis[d.target] for d in hidden], 1) if hidden else torch.zeros(basis.shape[1], 1)
    return value, up, down


class _PostNorm(BlockStack):
    def __init__(self, basis: Tensor, drives: tuple[Drive, ...], seed: int) -> None:
        width = basis.shape[1]
        super().__init__(
            n_layers=N_LAYERS, d_model=width, n_heads=1, d_mlp=len(drives), activation="relu", eps=1e-12
        )  # fmt: skip
        self.name, self.tokenizer = f"planted-post-{width}", _tokenizer(seed)
        self.embedding = _Embedding(basis, seed)
        for i in range(N_LAYERS):
            block, (value, up, down) = self.block(i), _mixing(basis, drives, i)
            for parameter in block.parameters():
                parameter.data.zero_()
            block.norm1.weight.data.fill_(1)
            block.norm2.weight.data.fill_(1)
            block.qkv.weight.data[2 * width :] = value
            block.out.weight.data = torch.eye(width)
            block.up.weight.data[: len(up)], block.up.bias.data[: len(up)] = up, -_THRESHOLD
            block.down.weight.data[:, : down.shape[1]] = down
        self.seal(hash_weights(self.state_dict()))

    def embed(self, batch: TokenBatch) -> Tensor:
        return self.embedding(self.tensor(batch.tokens))


class _PreNorm(ReadsCells):
    """h + A(LN(h)), then h + MLP(LN(h)): the stream itself is never rescaled."""

    device, dtype, n_layers = torch.device("cpu"), torch.float32, N_LAYERS

    def __init__(self, basis: Tensor, drives: tuple[Drive, ...], seed: int) -> None:
        self.d_model = basis.shape[1]
        self.name, self.tokenizer = f"planted-pre-{self.d_model}", _tokenizer(seed)
        self.embedding = _Embedding(basis, seed)
        self.weights = [_mixing(basis, drives, i) for i in range(N_LAYERS)]
        self.fingerprint = sha256_of(self.name, seed, *(w.numpy() for block in self.weights for w in block))

    def embed(self, batch: TokenBatch) -> Tensor:
        return self.embedding(torch.from_numpy(batch.tokens))

    def layer(self, i: int, h: Tensor, batch: TokenBatch) -> Tensor:
        value, up, down = self.weights[i]
        keep = torch.from_numpy(batch.role != Role.PAD).to(h.dtype)[..., None]
        normed = nn.functional.layer_norm(h, h.shape[-1:])
        h = h + (normed * keep).sum(1, keepdim=True) / keep.sum(1, keepdim=True) @ value.T
        normed = nn.functional.layer_norm(h, h.shape[-1:])
        return h + torch.relu(normed @ up.T - _THRESHOLD) @ down.T
