"""The exact engine: start at the edited layer, many edits and cells in one batch, read only what is asked.

Phases: (1) pack the jobs into chunks of sequences, each cell's clean sequence beside its edited copies, so
that both sides meet the same kernels; (2) propagate a chunk from the source layer to the deepest target;
(3) at each target layer gather the edited positions, encode the rows that changed, and subtract the clean
activations, which are encoded once per cell. Rows of a null edit, and rows that are bit for bit the clean ones,
are not encoded: their response is exactly 0, as is one under the numerical floor. Of the deepest target only the rows
that are read are computed.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.sae.base import SparseAutoencoder
from scircuit.sae.latents import Latents, concatenate
from scircuit.tracing.engines.clean import CleanBatch, Job, edited_positions, touched
from scircuit.tracing.floor import Floor, floors, in_float64


class Responses(NamedTuple):
    """What some jobs did to one target layer.

    `job` int64 `[n]` indexes the jobs; `delta` and `clean` are float64 `[n, latent]`: change and clean value
    of each latent's activation, averaged over the job's edited positions.
    """

    layer: int
    job: np.ndarray
    delta: Tensor
    clean: Tensor


def accumulator(device: torch.device) -> tuple[torch.device, torch.dtype]:
    """Where and in what precision sums are kept: float64 on the device, on the CPU where it has none (MPS)."""
    return (torch.device("cpu") if device.type == "mps" else device), torch.float64


def mean_over_jobs(latents: Latents, job_of_row: Tensor, counts: Tensor, n_latents: int) -> Tensor:
    """Float64 `[job, latent]`: sum of the rows' activations per job over the job's number of positions."""
    values = in_float64(latents.values)
    out = values.new_zeros(len(counts), n_latents)
    flat = job_of_row.to(values.device)[:, None] * n_latents + latents.indices.to(values.device)
    out.view(-1).index_add_(0, flat.reshape(-1), values.reshape(-1))
    return out / counts.to(values)[:, None]


class _CleanReads:
    """Clean latents at every position that any job reads, encoded once per cell and layer."""

    def __init__(self, clean: CleanBatch, jobs: Sequence[Job]) -> None:
        self.positions = {cell: torch.cat(parts).unique() for cell, parts in edited_positions(jobs).items()}
        self._latents: dict[tuple[int, int], Latents] = {}

    def at(self, cell: int, layer: int, h: Tensor, sae: SparseAutoencoder, positions: Tensor) -> Latents:
        """Latents of one cell at `positions`; `h` is its clean residual `[position, d_model]`."""
        read = self.positions[cell]
        if (cell, layer) not in self._latents:
            self._latents[cell, layer] = sae.encode(h[read])
        return self._latents[cell, layer].rows(torch.searchsorted(read, positions))


class Copies(NamedTuple):
    """Some jobs side by side: the clean sequences of their cells (`clean_row` by cell), then an edited copy per job."""

    numbers: list[int]
    jobs: list[Job]
    clean_row: dict[int, int]
    batch: TokenBatch
    h: Tensor
    """Residual `[sequence, position, d_model]`."""

    @classmethod
    def of(cls, clean: CleanBatch, jobs: list[Job], numbers: list[int]) -> "Copies":
        """At the edited layer."""
        cells = sorted({job.cell for job in jobs})
        of_row = np.array(cells + [job.cell for job in jobs])
        batch = clean.batch.take(of_row)
        h = clean.h[torch.from_numpy(of_row).to(clean.h.device), : batch.tokens.shape[1]].clone()
        counts = torch.tensor([len(job.edit.positions) for job in jobs], device=h.device)
        copy = torch.repeat_interleave(torch.arange(len(cells), len(of_row), device=h.device), counts)
        h[copy, torch.cat([job.edit.positions for job in jobs])] += torch.cat([job.edit.rows for job in jobs])
        return cls(numbers, jobs, {cell: row for row, cell in enumerate(cells)}, batch, h)


def copies(clean: CleanBatch, jobs: Sequence[Job], tokens: int) -> Iterator[Copies]:
    """The jobs in chunks of about `tokens` positions."""
    for numbers in pack(jobs, max(2, tokens // clean.h.shape[1])):
        yield Copies.of(clean, [jobs[n] for n in numbers], numbers)


def pack(jobs: Sequence[Job], size: int) -> Iterator[list[int]]:
    """Split job numbers into chunks of at most `size` sequences, counting one clean sequence per cell."""
    chunk: list[int] = []
    cells: set[int] = set()
    for number, job in enumerate(jobs):
        if chunk and len(chunk) + len(cells | {job.cell}) + 1 > size:
            yield chunk
            chunk, cells = [], set()
        chunk.append(number)
        cells.add(job.cell)
    if chunk:
        yield chunk


@torch.inference_mode()
def suffix_responses(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    clean: CleanBatch,
    jobs: Sequence[Job],
    targets: Sequence[int],
    *,
    tokens: int = 16_384,
) -> Iterator[Responses]:
    """Responses of every latent of `targets` to each job, exactly; chunk by chunk, layer by layer.

    `tokens` bounds the positions propagated at once.
    """
    reads = _CleanReads(clean, jobs)
    deepest = max(targets)
    least = floors(saes, targets, clean.h.dtype)
    for part in copies(clean, jobs, tokens):
        acts = touched(part.jobs)
        for layer in range(clean.layer + 1, deepest + 1):
            at = reads
            if layer == deepest and isinstance(model, BlockStack):
                # Both sides of a cell are computed at the same positions in the same order: the same kernels.
                at = _CleanReads(clean, part.jobs)
                part = part._replace(h=_only(model, layer, part, at))
            else:
                part = part._replace(h=model.layer(layer, part.h, part.batch))
            if layer in targets:
                yield _read(layer, part, saes[layer], least[layer], acts, at)


def _only(model: BlockStack, layer: int, part: Copies, read: _CleanReads) -> Tensor:
    """The residual after `layer` at the positions that are read of each sequence, NaN elsewhere."""
    positions = [read.positions[cell] for cell in (*part.clean_row, *(job.cell for job in part.jobs))]
    widest = max(map(len, positions))
    table = torch.stack([torch.cat([p, p[-1:].expand(widest - len(p))]) for p in positions])
    rows = model.block(layer).at(part.h, table, model.key_mask(part.batch))
    out = torch.full_like(part.h, torch.nan)
    return out.scatter_(1, table[..., None].expand_as(rows), rows)


def _read(
    layer: int, part: Copies, sae: SparseAutoencoder, floor: Floor, acts: Tensor, reads: _CleanReads
) -> Responses:
    """Phase 3 for one chunk and one target layer; `acts` bool `[job]` is False for null edits."""
    chunk, clean_row, state = part.jobs, part.clean_row, part.h
    device = state.device
    counts = torch.tensor([len(job.edit.positions) for job in chunk])
    of_job = torch.repeat_interleave(torch.arange(len(chunk)), counts).to(device)
    positions = torch.cat([job.edit.positions for job in chunk])
    rows = torch.tensor([clean_row[job.cell] for job in chunk], device=device)
    edited, at_rest = state[of_job + len(clean_row), positions], state[rows[of_job], positions]
    changed = (edited != at_rest).any(dim=1) & acts[of_job]

    parts = []
    for cell, of_cell in groupby(chunk, lambda job: job.cell):
        at = torch.cat([job.edit.positions for job in of_cell])
        parts.append(reads.at(cell, layer, state[clean_row[cell]], sae, at))
    before = concatenate(parts)
    before_mean = mean_over_jobs(before, of_job, counts, sae.n_latents)
    delta = torch.zeros_like(before_mean)
    if bool(changed.any()):
        after = sae.encode(edited[changed])
        delta = mean_over_jobs(after, of_job[changed], counts, sae.n_latents)
        delta -= mean_over_jobs(before.rows(changed), of_job[changed], counts, sae.n_latents)
        delta = floor.apply(delta, at_rest, of_job)
    return Responses(layer, np.array(part.numbers), delta, before_mean)
