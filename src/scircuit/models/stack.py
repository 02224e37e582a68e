"""`Stack`: what models of our own blocks share as `FoundationModel`s; `BlockStack`: Geneformer and scGPT."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from scircuit._io import sha256_of
from scircuit.cells.batch import Role, TokenBatch
from scircuit.cells.tokens import Tokenizer, tokenize
from scircuit.errors import ScircuitError
from scircuit.models.base import Masked
from scircuit.models.block import PostNormBlock
from scircuit.models.origin import Origin

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | torch.device) -> torch.device:
    """`auto` takes CUDA, then Apple MPS, then the CPU; anything else is a torch device name."""
    backends = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    here = [name for name, there in backends.items() if there]
    try:
        chosen = torch.device(here[0] if device == "auto" else device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ScircuitError(
            f"device={str(device)!r} cannot be used by torch on this machine; it may be auto, {', '.join(here)}."
        ) from None
    return chosen


def choose_dtype(dtype: str) -> torch.dtype:
    """Name of a dtype to the dtype; refused unless one of `DTYPES`."""
    if dtype not in DTYPES:
        raise ScircuitError(f"dtype={dtype!r} is unknown; it may be {', '.join(DTYPES)}.")
    return DTYPES[dtype]


class ReadsCells:
    """What follows from a model having a tokenizer."""

    tokenizer: Tokenizer

    @property
    def genes(self) -> pd.DataFrame:
        """The gene table of the vocabulary."""
        return self.tokenizer.vocabulary.genes

    @property
    def protocol(self) -> str:
        """The tokenisation protocol."""
        return self.tokenizer.protocol

    def batches(self, adata: Any, *, batch_size: int = 8, **options: Any) -> Iterator[TokenBatch]:
        """Tokenise cells (options of `cells.tokens.tokenize`) and batch them in the order given."""
        yield from tokenize(adata, self.tokenizer, **options).batches(batch_size, by_length=False)


class Stack(ReadsCells, nn.Module):
    """A tokenizer, embeddings (the subclass's) and blocks of ours; inference only, no dropout."""

    name: str
    blocks: nn.ModuleList
    fingerprint: str
    origin: Origin = Origin()

    def __init__(self, blocks: Sequence[nn.Module], d_model: int) -> None:
        super().__init__()
        self.n_layers, self.d_model = len(blocks), d_model
        self.blocks = nn.ModuleList(blocks)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are."""
        return next(self.parameters()).dtype

    def tensor(self, array: np.ndarray) -> Tensor:
        """A numpy array on the model's device; floats in the model's dtype."""
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def key_mask(self, batch: TokenBatch) -> Tensor | None:
        """bool `[cell, 1, 1, position]`, or None when nothing is padded (the faster kernels)."""
        keep = batch.role != Role.PAD
        return None if keep.all() else self.tensor(keep)[:, None, None, :]

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile each block with `torch.compile`, for sequences of any length; results differ by rounding."""
        for block in self.blocks:
            block.compile(dynamic=True, backend=backend)

    def layer(self, i: int, h: Tensor, batch: TokenBatch) -> Tensor:
        """The residual stream after block i."""
        if not 0 <= i < self.n_layers:
            raise ScircuitError(f"{self.name} has no layer {i}; layers are 0 to {self.n_layers - 1}.")
        after: Tensor = self.blocks[i](h, self.key_mask(batch))
        return after

    def mask(self, batch: TokenBatch, share: float, generator: torch.Generator) -> Masked:
        """Of a model with a loss: genes to be told by it."""
        raise ScircuitError(
            f"{self.name} has no loss of its own; set offers_loss = False, or give mask and masked_loss."
        )

    def masked_loss(self, h: Tensor, masked: Masked) -> Tensor:
        """Of a model with a loss: how well they are told."""
        raise ScircuitError(
            f"{self.name} has no loss of its own; set offers_loss = False, or give mask and masked_loss."
        )

    def seal(self, weights: str, settings: Mapping[str, Any] | None = None, origin: Origin | None = None) -> None:
        """Freeze, and set the fingerprint, from the hash of the weights and what else decides the output.

        `settings` are what the architecture reads from its configuration: equal weights with another number of heads or
        another activation are another model.
        """
        self.requires_grad_(False)
        self.eval()
        self.origin = origin or Origin()
        parts = (self.name, weights, dict(settings or {}), self.tokenizer.fingerprint, str(self.dtype))
        self.fingerprint = sha256_of(*parts)


class BlockStack(Stack):
    """Post-norm blocks, into which the local engine looks."""

    def __init__(self, *, n_layers: int, d_model: int, n_heads: int, d_mlp: int, activation: str, eps: float) -> None:
        blocks = [PostNormBlock(d_model, n_heads, d_mlp, activation=activation, eps=eps) for _ in range(n_layers)]
        super().__init__(blocks, d_model)

    def block(self, i: int) -> PostNormBlock:
        """Block i itself, for engines that need its keys and values."""
        if not 0 <= i < self.n_layers:
            raise ScircuitError(f"{self.name} has no layer {i}; layers are 0 to {self.n_layers - 1}.")
        block = self.blocks[i]
        assert isinstance(block, PostNormBlock)
        return block


def hidden(batch: TokenBatch, share: float, generator: torch.Generator) -> np.ndarray:
    """A random share of the gene positions, bool `[cell, position]`."""
    return (torch.rand(batch.tokens.shape, generator=generator) < share).numpy() & batch.is_gene


def mask_tokens(batch: TokenBatch, chosen: np.ndarray, mask: int) -> Masked:
    """The batch with the token `mask` at the chosen positions."""
    tokens = np.where(chosen, mask, batch.tokens)
    masked = TokenBatch(tokens, batch.role, batch.gene, batch.cell)
    return Masked(masked, torch.from_numpy(chosen).nonzero(), torch.from_numpy(batch.tokens[chosen]))


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """sha256 of tensors in name order."""
    return sha256_of(*(x for name in sorted(weights) for x in (name, weights[name].float().cpu().numpy())))


def check_depth(n_layers: int, n_weights: int, path: Path) -> None:
    """Refuse a config that asks for more blocks than the file has tensors, before the blocks are built."""
    if n_layers > n_weights:
        raise ScircuitError(
            f"{path} holds {n_weights:,} tensors, the config asks for {n_layers:,} layers; weights and config "
            "belong to different models."
        )


def assign(model: nn.Module, weights: Mapping[str, Tensor], path: Path, unused: frozenset[str]) -> None:
    """Load `weights` (our names) strictly."""
    expected = model.state_dict()
    missing = sorted(set(expected) - set(weights))
    extra = sorted(set(weights) - set(expected) - unused)
    if missing:
        raise ScircuitError(f"{path} lacks the weight {missing[0]} ({len(missing)} in all); take a complete file.")
    if extra:
        raise ScircuitError(
            f"{path} holds an unexpected weight {extra[0]} ({len(extra)} in all), so it is another architecture; "
            "take the published checkpoint."
        )
    for name, tensor in expected.items():
        if tensor.shape != weights[name].shape:
            raise ScircuitError(
                f"{path}: {name} has shape {tuple(weights[name].shape)}, the config asks for "
                f"{tuple(tensor.shape)}; weights and config belong to different models."
            )
    model.load_state_dict({name: weights[name] for name in expected}, assign=True)
