"""What the model says of each gene, and how that changes: under ablation of a latent, or without a gene's token.

The output for a gene is read where the gene stands: the logit of its own token (Geneformer), or its predicted
expression bin (scGPT). Both engines are exact: every intervention runs the rest of the model again.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.stream import residuals, resume
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.exact import copies
from scircuit.tracing.engines.interventions import Intervention

_ROWS = 256


class OutputChange(NamedTuple):
    """Sums over cells of the change of the output for each gene.

    `total` float64 and `n_cells` int64 are `[intervention, gene]`; a cell counts where it holds the gene and the
    intervention changed something in it.
    """

    total: np.ndarray
    n_cells: np.ndarray

    @classmethod
    def zeros(cls, n_interventions: int, n_genes: int) -> "OutputChange":
        """Sums over no cells."""
        shape = (n_interventions, n_genes)
        return cls(np.zeros(shape), np.zeros(shape, dtype=np.int64))

    def add(self, row: int, genes: np.ndarray, delta: np.ndarray) -> None:
        """Count one cell; each gene occurs once in it."""
        self.total[row, genes] += delta
        self.n_cells[row, genes] += 1

    def mean(self) -> np.ndarray:
        """Mean change `[intervention, gene]`, NaN where no cell counted."""
        return np.divide(self.total, self.n_cells, out=np.full(self.total.shape, np.nan), where=self.n_cells > 0)


def require_outputs(model: FoundationModel) -> None:
    """Refuse a model whose masked-token head is not shown."""
    if not hasattr(model, "logits"):
        raise ScircuitError(
            f"{model.name} shows no masked-token head, so its outputs cannot be read; predict through the gene "
            "loadings alone, without in-silico deletion."
        )


def gene_outputs(model: FoundationModel, h: Tensor, tokens: Tensor) -> np.ndarray:
    """Output for the gene at each position, float64 `[position]`, from residuals of the last layer.

    `h` is `[position, d_model]` and `tokens` int64 `[position]`. Of a head over the vocabulary the token's own logit
    is taken; a head with one value per position is read as it is.
    """
    parts = [own_output(model, *some) for some in zip(h.split(_ROWS), tokens.split(_ROWS), strict=True)]
    return torch.cat(parts).double().cpu().numpy() if parts else np.zeros(0)


def own_output(model: FoundationModel, rows: Tensor, tokens: Tensor) -> Tensor:
    """The same of a few rows, as a tensor `[row]` through which gradients flow."""
    said: Tensor = model.logits(rows)  # type: ignore[attr-defined]
    return said[:, 0] if said.shape[1] == 1 else said.gather(1, tokens[:, None])[:, 0]


@torch.inference_mode()
def ablation_outputs(
    model: FoundationModel,
    sae: SparseAutoencoder,
    layer: int,
    features: Sequence[int],
    batches: Iterable[TokenBatch],
    *,
    tokens: int = 16_384,
) -> OutputChange:
    """Change of the output for every gene when each of `features` of a layer is ablated where it fires, over all cells.

    `sae` reads the residual after block `layer`; `tokens` positions are propagated at once.
    """
    require_outputs(model)
    sums = OutputChange.zeros(len(features), len(model.genes))
    interventions = [Intervention((int(feature),)) for feature in features]
    for batch in batches:
        clean = clean_batch(model, sae, batch, layer)
        jobs = make_jobs(clean, sae, interventions)
        for _, chunk, clean_row, taken, h in copies(clean, jobs, tokens):
            last = _last(model, h, layer, taken)
            before = {cell: _outputs_of(model, last[row], taken, row) for cell, row in clean_row.items()}
            for copy, job in enumerate(chunk, len(clean_row)):
                genes, after = _outputs_of(model, last[copy], taken, copy)
                sums.add(job.row, genes, after - before[job.cell][1])
    return sums


@torch.inference_mode()
def deletion_outputs(
    model: FoundationModel, genes: Sequence[int], batches_of: Iterable[tuple[int, Iterable[TokenBatch]]]
) -> OutputChange:
    """Change of the output for every other gene when a gene's token is deleted from the cells that hold it.

    In-silico deletion of Theodoris et al. (Nature 2023), read at the model's output: the sequence closes up, so that in
    a model of ranks every later gene moves up by one. `genes` are rows of the model's gene table; for each position in
    it, `batches_of` has batches of cells that all hold that gene.
    """
    require_outputs(model)
    sums = OutputChange.zeros(len(genes), len(model.genes))
    for row, batches in batches_of:
        for batch in batches:
            without = delete_gene(batch, genes[row])
            before, after = (_all_outputs(model, one) for one in (batch, without))
            for (kept, old), (stayed, new) in zip(before, after, strict=True):
                others = kept != genes[row]
                assert np.array_equal(kept[others], stayed)
                sums.add(row, stayed, new - old[others])
    return sums


def delete_gene(batch: TokenBatch, gene: int) -> TokenBatch:
    """The batch with the one position of a gene taken out of every sequence."""
    keep = batch.gene != gene
    if not ((~keep).sum(axis=1) == 1).all():
        raise ScircuitError(f"A cell does not hold gene {gene} once; its token can be deleted only where it stands.")
    shape = (len(batch), batch.tokens.shape[1] - 1)
    tokens, role, genes = (array[keep].reshape(shape) for array in (batch.tokens, batch.role, batch.gene))
    return TokenBatch(
        tokens, role, genes, batch.cell, None if batch.values is None else batch.values[keep].reshape(shape)
    )


def _last(model: FoundationModel, h: Tensor, layer: int, batch: TokenBatch) -> Tensor:
    for _, state in resume(model, h, layer, batch):
        h = state
    return h


def _all_outputs(model: FoundationModel, batch: TokenBatch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    last = model.n_layers - 1
    h = residuals(model, batch, [last])[last]
    for row in range(len(batch)):
        yield _outputs_of(model, h[row], batch, row)


def _outputs_of(model: FoundationModel, h: Tensor, batch: TokenBatch, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Genes of one cell and the output for each, `[position]`."""
    at = np.flatnonzero(batch.is_gene[row])
    own = torch.from_numpy(batch.tokens[row, at]).to(h.device)
    return batch.gene[row, at], gene_outputs(model, h[torch.from_numpy(at).to(h.device)], own)
