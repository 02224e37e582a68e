"""What a circuit may be asked to carry: a scalar per cell, read from the model as it runs.

A behaviour is one class: `of` makes it from the text after its name (`genes:CD3E,IL7R`), `ask` says of one cell what
the model is shown and how the scalar is read. Readers let gradients through.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from scircuit.cells.batch import TokenBatch
from scircuit.cells.tokens import TokenStore
from scircuit.cells.vocabulary import gene_names
from scircuit.errors import ScircuitError
from scircuit.models.stream import residuals
from scircuit.tracing.probes.kept import Read
from scircuit.tracing.probes.outputs import own_output
from scircuit.tracing.probes.walk import gene_positions
from scircuit.tracing.setup import Setup

MASK_SHARE = 0.15
"""Of the genes of a cell, hidden for the loss."""
RIDGE = 1.0
"""Penalty of a linear probe, on embeddings brought to mean 0 and standard deviation 1."""
FEWEST, HELD_OUT = 5, 0.2
"""Fewest cells of a probe, and the share of them by which its accuracy is told."""


class Asked(NamedTuple):
    """What the model is shown of one cell, and how the behaviour is read."""

    batch: TokenBatch
    read: Read


class Behaviour(Protocol):
    """A scalar per cell."""

    name: str
    below: int
    """First layer whose latents have no say in it: nothing is silenced from there on."""

    @classmethod
    def of(cls, argument: str, setup: Setup, others: TokenStore, seed: int) -> "Behaviour":
        """From the text after the name; `others` are cells that it may be fitted on, none of them measured."""
        ...

    def ask(self, batch: TokenBatch) -> Asked | None:
        """How one cell of the setup is asked; None where it cannot be."""
        ...

    def told(self) -> pd.DataFrame:
        """How good it is itself: `kind` (of `circuits.variants.KINDS`), `cell, value`; empty where there is nothing."""
        ...


class _Plain:
    def told(self) -> pd.DataFrame:
        """Nothing was fitted."""
        return pd.DataFrame({"kind": [], "cell": [], "value": []})


class Loss(_Plain):
    """The pre-training loss of genes that are hidden at random, the same ones under every variant."""

    name = "loss"

    def __init__(self, setup: Setup, seed: int) -> None:
        if not getattr(setup.model, "offers_loss", True):
            raise ScircuitError(f"{setup.model.name} offers no loss; ask for another behaviour, as embedding.")
        self.model, self.seed, self.below = setup.model, seed, setup.model.n_layers

    @classmethod
    def of(cls, argument: str, setup: Setup, others: TokenStore, seed: int) -> "Loss":
        """It takes no argument."""
        _no_argument(cls.name, argument)
        return cls(setup, seed)

    def ask(self, batch: TokenBatch) -> Asked | None:
        """With a share of the genes hidden."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + int(batch.cell[0]))
        masked = self.model.mask(batch, MASK_SHARE, generator)
        if not len(masked.targets):
            return None
        one = masked._replace(positions=masked.positions.to(self.model.device))
        return Asked(
            masked.batch, lambda h: torch.stack([self.model.masked_loss(h[i : i + 1], one) for i in range(len(h))])
        )


class Genes(_Plain):
    """The model's own output for chosen genes, where they stand: mean of logits, or of predicted expression bins."""

    name = "genes"

    def __init__(self, setup: Setup, genes: Sequence[str]) -> None:
        if not hasattr(setup.model, "logits"):
            raise ScircuitError(f"{setup.model.name} shows no masked-token head; ask for another behaviour.")
        known = pd.Index(gene_names(setup.model.genes))
        unknown = [gene for gene in genes if gene not in known]
        if unknown:
            raise ScircuitError(
                f"{setup.model.name} does not read the gene {unknown[0]}; name genes of its vocabulary."
            )
        self.model, self.rows, self.below = setup.model, np.flatnonzero(known.isin(genes)), setup.model.n_layers

    @classmethod
    def of(cls, argument: str, setup: Setup, others: TokenStore, seed: int) -> "Genes":
        """Symbols after a colon, with commas between."""
        genes = [gene for gene in argument.split(",") if gene]
        if not genes:
            raise ScircuitError("genes needs symbols; write for example genes:CD3E,IL7R.")
        return cls(setup, genes)

    def ask(self, batch: TokenBatch) -> Asked | None:
        """A cell that holds one of them."""
        at = np.flatnonzero(np.isin(batch.gene[0], self.rows) & batch.is_gene[0])
        if not len(at):
            return None
        where = torch.from_numpy(at).to(self.model.device)
        tokens = torch.from_numpy(batch.tokens[0, at]).to(self.model.device)

        def read(h: Tensor) -> Tensor:
            own = own_output(self.model, h[:, where].flatten(0, 1), tokens.repeat(len(h)))
            return own.view(len(h), -1).mean(dim=1)

        return Asked(batch, read)


class Embedding(_Plain):
    """Cosine of the cell embedding (mean of the last residual over the genes) to that of the clean cell."""

    name = "embedding"

    def __init__(self, setup: Setup) -> None:
        self.device, self.below = setup.model.device, setup.model.n_layers

    @classmethod
    def of(cls, argument: str, setup: Setup, others: TokenStore, seed: int) -> "Embedding":
        """It takes no argument."""
        _no_argument(cls.name, argument)
        return cls(setup)

    def ask(self, batch: TokenBatch) -> Asked | None:
        """Any cell."""
        genes = gene_positions(batch, self.device)

        def read(h: Tensor) -> Tensor:
            cell = h[:, genes].mean(dim=1)
            return functional.cosine_similarity(cell, cell[:1].detach(), dim=1)

        return Asked(batch, read)


class Latents(_Plain):
    """Mean activation over the genes of chosen latents of one layer, added up, as the run arrives there."""

    name = "latents"

    def __init__(self, setup: Setup, layer: int, features: Sequence[int]) -> None:
        if layer not in setup.saes or layer <= min(setup.saes):
            raise ScircuitError(f"Layer {layer} has no dictionary, or none lies below it; name latents of a later one.")
        wrong = [f for f in features if f >= setup.saes[layer].n_latents]
        if wrong:
            raise ScircuitError(f"Layer {layer} has no latent {wrong[0]}; it has {setup.saes[layer].n_latents}.")
        self.sae, self.features, self.below, self.device = setup.saes[layer], features, layer, setup.model.device

    @classmethod
    def of(cls, argument: str, setup: Setup, others: TokenStore, seed: int) -> "Latents":
        """`3:17+40`, as other commands name latents."""
        layer, _, features = argument.partition(":")
        if not layer.isdecimal() or not all(f.isdecimal() for f in features.split("+")):
            raise ScircuitError(f"latents:{argument} names none; write latents:LAYER:LATENT+LATENT, as latents:3:17.")
        return cls(setup, int(layer), [int(f) for f in features.split("+")])

    def ask(self, batch: TokenBatch) -> Asked | None:
        """Any cell."""
        genes = gene_positions(batch, self.device)

        def read(h: Tensor) -> Tensor:
            latents = self.sae.encode(h[:, genes].flatten(0, 1))
            own = torch.stack([latents.column(feature) for feature in self.features]).sum(dim=0)
            return own.view(len(h), -1).mean(dim=1)

        return Asked(batch, read)


class Probe:
    """Score of a linear probe for an obs column: that of the cell's own category less the mean of the others.

    Ridge regression of the categories on cell embeddings, by cells that are not measured.
    """

    name = "probe"

    def __init__(self, setup: Setup, column: str, others: TokenStore, seed: int) -> None:
        for store in (setup.cells, others):
            if column not in store.cells:
                raise ScircuitError(f"The cells have no obs column {column!r}; name one of theirs.")
        self.below, self.device = setup.model.n_layers, setup.model.device
        others = others.subset(np.flatnonzero(others.cells[column].notna()))  # no label is not a category
        labels = others.cells[column].astype(str).to_numpy()
        self.names = np.unique(labels)
        if len(self.names) < 2 or len(labels) < FEWEST:
            raise ScircuitError(
                f"obs column {column!r} has {len(self.names)} categories in {len(labels)} cells that may be fitted; a "
                f"probe needs two, and {FEWEST} cells."
            )
        order = np.random.default_rng([seed, 9]).permutation(len(labels))
        aside, fitted = np.split(order, [max(1, round(HELD_OUT * len(order)))])
        x, code = _embeddings(setup, others), np.searchsorted(self.names, labels)
        mean, spread = x[fitted].mean(axis=0), x[fitted].std(axis=0) + 1e-8
        x = np.column_stack([(x - mean) / spread, np.ones(len(x))])
        gram = x[fitted].T @ x[fitted] + RIDGE * np.diag([*np.ones(x.shape[1] - 1), 0.0])
        weights = np.linalg.solve(gram, x[fitted].T @ np.eye(len(self.names))[code[fitted]])
        known = (x[aside] @ weights).argmax(axis=1) == code[aside]
        commonest = np.bincount(code[fitted]).argmax()
        self._told = pd.concat(
            pd.DataFrame({"kind": kind, "cell": aside, "value": hit.astype(float)})
            for kind, hit in (("held_out", known), ("majority", code[aside] == commonest))
        )
        on, dtype = self.device, setup.model.dtype
        self.weights = torch.tensor(weights[:-1] / spread[:, None], device=on, dtype=dtype)
        self.bias = torch.tensor(weights[-1] - (mean / spread) @ weights[:-1], device=on, dtype=dtype)
        self.labels = setup.cells.cells[column].astype(str).to_numpy()

    @classmethod
    def of(cls, argument: str, setup: Setup, others: TokenStore, seed: int) -> "Probe":
        """The obs column."""
        if not argument:
            raise ScircuitError("probe needs an obs column; write for example probe:cell_type.")
        return cls(setup, argument, others, seed)

    def ask(self, batch: TokenBatch) -> Asked | None:
        """A cell of a category that the probe knows."""
        label = self.labels[batch.cell[0]]
        own = int(np.searchsorted(self.names, label))
        if own == len(self.names) or self.names[own] != label:
            return None
        genes = gene_positions(batch, self.device)

        def read(h: Tensor) -> Tensor:
            scores = h[:, genes].mean(dim=1) @ self.weights + self.bias
            return (scores[:, own] * len(self.names) - scores.sum(dim=1)) / (len(self.names) - 1)

        return Asked(batch, read)

    def told(self) -> pd.DataFrame:
        """Which held-out cells it tells right, and which the commonest category would."""
        return self._told


def _embeddings(setup: Setup, cells: TokenStore) -> np.ndarray:
    """Float64 `[cell, d_model]`."""
    last, rows = setup.model.n_layers - 1, []
    for batch in cells.batches(1, by_length=False):
        h = residuals(setup.model, batch, [last])[last]
        rows.append(h[0, gene_positions(batch, h.device)].mean(dim=0).cpu().double().numpy())
    return np.array(rows)


def _no_argument(name: str, argument: str) -> None:
    if argument:
        raise ScircuitError(f"{name}:{argument} says too much; {name} takes nothing after it.")


KINDS: tuple[type[Behaviour], ...] = (Loss, Genes, Embedding, Probe, Latents)
BEHAVIOURS = {kind.name: kind for kind in KINDS}


def behaviour(text: str, setup: Setup, others: TokenStore, seed: int = 0) -> Behaviour:
    """The behaviour that `text` names: `loss`, `genes:A,B`, `embedding`, `probe:COLUMN`, `latents:LAYER:F+F`."""
    name, _, argument = text.partition(":")
    if name not in BEHAVIOURS:
        raise ScircuitError(f"there is no behaviour {name!r}; ask for {', '.join(BEHAVIOURS)}.")
    return BEHAVIOURS[name].of(argument, setup, others, seed)
