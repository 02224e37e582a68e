"""The clean side of a trace: a batch of cells at the source layer, computed once for all its edits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from scircuit.cells.batch import Role, TokenBatch
from scircuit.models.base import FoundationModel
from scircuit.models.stream import residuals
from scircuit.sae.base import SparseAutoencoder
from scircuit.sae.latents import Latents
from scircuit.tracing.engines.interventions import Edit, Firings, Intervention

T = TypeVar("T")
_SPECIAL = (Role.CLS, Role.EOS)


class CleanBatch(NamedTuple):
    """Cells at the source layer.

    `h` is the residual `[cell, position, d_model]`; `positions[c]` are the positions of cell c that are looked at and
    `latents[c]` the source layer's latents there.
    """

    batch: TokenBatch
    layer: int
    h: Tensor
    positions: list[Tensor]
    latents: list[Latents]


class Job(NamedTuple):
    """One intervention in one cell: `row` of the table it counts for, `cell` of the batch, and the edit."""

    row: int
    cell: int
    edit: Edit


def packed(items: Iterable[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Neighbours in groups whose sizes add up to at most `most`; a larger one goes alone."""
    group: list[T] = []
    total = 0
    for item in items:
        if group and total + size(item) > most:
            yield group
            group, total = [], 0
        group.append(item)
        total += size(item)
    if group:
        yield group


def edited_positions(jobs: Sequence[Job]) -> dict[int, list[Tensor]]:
    """Positions that each job edits, per cell."""
    found: dict[int, list[Tensor]] = {}
    for job in jobs:
        found.setdefault(job.cell, []).append(job.edit.positions)
    return found


def touched(jobs: Sequence[Job]) -> Tensor:
    """Which jobs change anything: bool `[job]`, False where every row of the edit is 0.

    The response to such a null edit is 0 by definition. The engines say so by this mask and do not leave it to the
    kernels, of which many give a row other last bits at another place in the batch.
    """
    nonzero = torch.cat([job.edit.rows for job in jobs]).any(dim=1)
    counts = torch.tensor([len(job.edit.positions) for job in jobs], device=nonzero.device)
    of_row = torch.repeat_interleave(torch.arange(len(jobs), device=nonzero.device), counts)
    return torch.bincount(of_row[nonzero], minlength=len(jobs)) > 0


@torch.inference_mode()
def clean_batch(
    model: FoundationModel, sae: SparseAutoencoder, batch: TokenBatch, layer: int, special_tokens: bool = False
) -> CleanBatch:
    """Run the batch up to `layer` and encode the gene positions, or with `special_tokens` <cls> and <eos> too."""
    h = residuals(model, batch, [layer])[layer]
    looked_at = batch.is_gene | np.isin(batch.role, _SPECIAL) if special_tokens else batch.is_gene
    where = torch.from_numpy(looked_at).to(h.device)
    positions = [row.nonzero().squeeze(1) for row in where]
    latents = [sae.encode(h[c, p]) for c, p in enumerate(positions)]
    return CleanBatch(batch, layer, h, positions, latents)


@torch.inference_mode()
def make_jobs(clean: CleanBatch, sae: SparseAutoencoder, interventions: Sequence[Intervention]) -> list[Job]:
    """Every (cell, intervention) pair in which a latent fires, cell by cell."""
    jobs = []
    for cell, (positions, latents) in enumerate(zip(clean.positions, clean.latents, strict=True)):
        firings = Firings(latents, positions, int(clean.batch.cell[cell]), clean.h[cell])
        for row, intervention in enumerate(interventions):
            edit = intervention.edit(sae, firings)
            if edit is not None:
                jobs.append(Job(row, cell, edit))
    return jobs
