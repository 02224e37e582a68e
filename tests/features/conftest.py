"""A model and SAEs small enough to recompute every number with plain loops."""

import numpy as np
import pandas as pd
import pytest
import torch

from scircuit.cells.batch import Role, TokenBatch
from scircuit.sae.base import SaeConfig
from scircuit.sae.topk import TopKSAE

N_LAYERS, D_MODEL, N_GENES, N_LATENTS, K = 3, 8, 12, 20, 4


class ToyModel:
    """Residuals are a fixed random vector per (layer, gene, cell parity): no attention, so cells do not mix."""

    name, n_layers, d_model, protocol, fingerprint = "toy", N_LAYERS, D_MODEL, "official", "f" * 64
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(N_LAYERS, N_GENES, 2, D_MODEL, generator=generator)
        symbols = [f"G{i}" for i in range(N_GENES - 1)] + [""]
        self.genes = pd.DataFrame(
            {"ensembl_id": [f"ENSG{i:011d}" for i in range(N_GENES)], "symbol": symbols, "token": range(4, 4 + N_GENES)}
        )

    def embed(self, batch: TokenBatch) -> torch.Tensor:
        return torch.zeros(*batch.tokens.shape, D_MODEL)

    def layer(self, i: int, h: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        gene = torch.from_numpy(batch.gene).long()
        parity = torch.from_numpy(batch.cell % 2)[:, None].expand_as(gene)
        out = self.table[i][gene.clamp(min=0), parity]
        # Huge values where no gene sits: a catalogue that read them could not go unnoticed.
        return torch.where(torch.from_numpy(batch.is_gene)[..., None], out, torch.full_like(out, 1e6))


class ToySae(TopKSAE):
    """A dictionary whose encoder is its decoder."""

    def __init__(self, W_dec: torch.Tensor) -> None:
        n_latents, d_in = W_dec.shape
        zeros = torch.zeros(n_latents), torch.zeros(d_in)
        super().__init__(SaeConfig("topk", d_in, n_latents, k=K), W_dec.T, zeros[0], W_dec, zeros[1])


@pytest.fixture(scope="session")
def toy_model() -> ToyModel:
    return ToyModel()


@pytest.fixture(scope="session")
def toy_saes() -> dict[int, ToySae]:
    generator = torch.Generator().manual_seed(1)
    return {layer: ToySae(torch.randn(N_LATENTS, D_MODEL, generator=generator)) for layer in (0, 2)}


def make_cells(n_cells: int, seed: int = 0) -> list[np.ndarray]:
    """Genes of each cell, a random subset in random order."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(N_GENES - 2)[: rng.integers(3, N_GENES - 2)] for _ in range(n_cells)]


def make_batches(cells: list[np.ndarray], size: int) -> list[TokenBatch]:
    """Right-padded batches with `<cls>` in front."""
    batches = []
    for start in range(0, len(cells), size):
        part = cells[start : start + size]
        width = 1 + max(map(len, part))
        gene = np.full((len(part), width), -1, dtype=np.int32)
        role = np.full((len(part), width), Role.PAD, dtype=np.int8)
        for row, genes in enumerate(part):
            gene[row, 1 : 1 + len(genes)] = genes
            role[row, 0], role[row, 1 : 1 + len(genes)] = Role.CLS, Role.GENE
        cell = np.arange(start, start + len(part))
        batches.append(TokenBatch(np.where(gene >= 0, gene + 4, 0).astype(np.int64), role, gene, cell))
    return batches


@pytest.fixture(scope="session")
def toy_cells() -> list[np.ndarray]:
    return make_cells(30)


@pytest.fixture(scope="session")
def toy_batches(toy_cells: list[np.ndarray]) -> list[TokenBatch]:
    return make_batches(toy_cells, 7)


@pytest.fixture(scope="session")
def batched():
    """`make_batches`, for tests that choose the batch size."""
    return make_batches
