"""The door between foundation models and everything above: a stack of residual layers."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pandas as pd
import torch
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.cells.tokens import Tokenizer


class Masked(NamedTuple):
    """A batch with some genes hidden, and the answers.

    `batch` is the masked input, `positions` int64 `[n, 2]` (row, position) of the hidden genes,
    `targets` what stood there: token ids (int64) or expression bins (float32), `[n]`.
    """

    batch: TokenBatch
    positions: Tensor
    targets: Tensor


@runtime_checkable
class FoundationModel(Protocol):
    """A transformer that can be entered and left at any layer.

    Layer i (0-based) is the residual stream after block i; some packages call it site i + 1, site 0 being
    the embeddings. All residuals are `[cell, position, d_model]`, batch first, on `device`.
    """

    name: str
    n_layers: int
    d_model: int
    tokenizer: Tokenizer
    fingerprint: str
    """sha256 over weights, dictionaries, tokenisation protocol and dtype."""

    @property
    def genes(self) -> pd.DataFrame:
        """One row per gene of the vocabulary, columns `ensembl_id`, `symbol`, `token`."""
        ...

    @property
    def protocol(self) -> str:
        """Name of the tokenisation protocol."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are."""
        ...

    def batches(self, adata: Any, **options: Any) -> Iterator[TokenBatch]:
        """Tokenise cells under the model's protocol."""
        ...

    def embed(self, batch: TokenBatch) -> Tensor:
        """Residual stream before block 0."""
        ...

    def layer(self, i: int, h: Tensor, batch: TokenBatch) -> Tensor:
        """Block i: the residual stream of layer i from that of layer i - 1."""
        ...

    def mask(self, batch: TokenBatch, share: float, generator: torch.Generator) -> Masked:
        """Hide a share of the genes the way the model was pre-trained."""
        ...

    def masked_loss(self, h: Tensor, masked: Masked) -> Tensor:
        """The pre-training loss at the hidden positions, from the residual of the last layer; a scalar."""
        ...
