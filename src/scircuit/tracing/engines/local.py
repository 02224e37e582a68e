"""The position-local engine: propagate only the rows that an ablation touches, for all latents of a layer at once.

An ablation changes the residual only where its latent fires, and its response is read there only. The rows at
those positions are propagated; every other position keeps its clean keys and values. A row attends to the clean
keys of the whole cell, with the columns of its own edit replaced by the edited keys and values. This is exact for
the first layer above the source and drops only the paths that leave the edited positions and come back; with
`context_rows` the positions that listen most to the edit are propagated as well, up to all of them, which is exact.

Phases, per cell: (1) choose the rows of each job and pack jobs into chunks of like size; (2) per layer, take the
clean keys and values once; (3) per chunk, attention in two parts, over the shared clean keys without the rows' own
columns and over each job's edited ones (`tracing.attention`); the MLP; (4) at target layers encode the edited rows
and subtract the clean side; what lies under the numerical floor is 0.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.block import PostNormBlock
from scircuit.models.stack import BlockStack
from scircuit.sae.base import SparseAutoencoder
from scircuit.sae.latents import Latents
from scircuit.tracing.engines.attention import attend
from scircuit.tracing.engines.clean import CleanBatch, Job, packed, touched
from scircuit.tracing.engines.exact import Responses, mean_over_jobs
from scircuit.tracing.floor import Floor, floors


@dataclass
class _Chunk:
    """Some jobs of one cell: their rows one after another, and where each row's own columns are.

    `position` int64 `[row]`; `read` bool `[row]`, the rows at which the response is read; `of_job` int64 `[row]`.
    `table` int64 `[job, widest]` holds the rows of each job, `valid` is False at its padding. `own` int64 `[pair]`
    lists the clean columns that are a row's own, as row x positions + position. `acts` bool `[job]` is False for null
    edits, whose response is exactly 0.
    """

    numbers: np.ndarray
    position: Tensor
    read: Tensor
    of_job: Tensor
    table: Tensor
    valid: Tensor
    own: Tensor
    acts: Tensor
    x: Tensor


@torch.inference_mode()
def local_responses(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    clean: CleanBatch,
    jobs: Sequence[Job],
    targets: Sequence[int],
    *,
    context_rows: float = 0.0,
    score_bytes: int = 1 << 27,
) -> Iterator[Responses]:
    """Responses of every latent of `targets` to each job, layer by layer, chunk by chunk.

    `context_rows` are propagated beside the firing positions, per firing position of the job (0 is local, infinity
    exact); `score_bytes` of attention scores decide how many rows go together.
    """
    if not isinstance(model, BlockStack):
        raise ScircuitError(f"{model.name} does not show its keys and values, so only engine='exact' can trace it.")
    least = floors(saes, targets, clean.h.dtype)
    of_cell: dict[int, list[int]] = {}
    for number, job in enumerate(jobs):
        of_cell.setdefault(job.cell, []).append(number)
    for cell, numbers in of_cell.items():
        length = int(clean.batch.lengths[cell])
        h = clean.h[cell, :length]
        first = model.block(clean.layer + 1)
        context = _context(first, h) if context_rows > 0 else None
        rows = max(1, score_bytes // (4 * first.n_heads * length))
        chunks = list(_chunks(jobs, numbers, h, rows, context_rows, context))
        read = torch.cat([jobs[n].edit.positions for n in numbers]).unique()
        for layer in range(clean.layer + 1, max(targets) + 1):
            block = model.block(layer)
            q, k, v = block.heads(h)
            for chunk in chunks:
                chunk.x = _propagate(block, chunk, k, v)
            h = block.finish(h, block.merge(F.scaled_dot_product_attention(q[None], k[None], v[None])[0]))
            if layer in targets:
                yield from _read(layer, saes[layer], least[layer], h, read, chunks)


def _context(block: PostNormBlock, h: Tensor) -> Tensor:
    """Clean attention of the first downstream layer, mean over heads, `[query position, key position]`."""
    q, k, _ = block.heads(h)
    out = torch.zeros(len(h), len(h), device=h.device, dtype=torch.float32)
    for head in range(block.n_heads):
        out += (q[head] @ k[head].T / math.sqrt(q.shape[-1])).softmax(dim=-1)
    return out / block.n_heads


def _rows_of(job: Job, length: int, context_rows: float, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Positions that a job propagates, ascending, and which of them are its own."""
    own = job.edit.positions
    if context is None:
        return own, torch.ones(len(own), dtype=torch.bool, device=own.device)
    listening = context[:, own].sum(dim=1)
    listening[own] = -1.0
    m = min(length - len(own), math.ceil(min(context_rows * len(own), length)))
    extra = listening.topk(m).indices
    both, order = torch.cat([own, extra]).sort()
    return both, order < len(own)


def _chunks(
    jobs: Sequence[Job], numbers: Sequence[int], h: Tensor, rows: int, context_rows: float, context: Tensor | None
) -> Iterator[_Chunk]:
    """Jobs of like size together, at most `rows` rows (at least one job)."""
    chosen = {n: _rows_of(jobs[n], len(h), context_rows, context) for n in numbers}

    def size(number: int) -> int:
        return len(chosen[number][0])

    return (_pack(jobs, some, chosen, h) for some in packed(sorted(chosen, key=size), size, rows))


def _pack(jobs: Sequence[Job], numbers: list[int], chosen: Mapping[int, tuple[Tensor, Tensor]], h: Tensor) -> _Chunk:
    device = h.device
    position = torch.cat([chosen[n][0] for n in numbers])
    read = torch.cat([chosen[n][1] for n in numbers])
    sizes = torch.tensor([len(chosen[n][0]) for n in numbers], device=device)
    of_job = torch.repeat_interleave(torch.arange(len(numbers), device=device), sizes)
    start = sizes.cumsum(0) - sizes
    slot = torch.arange(int(sizes.max()), device=device)
    valid = slot < sizes[:, None]
    table = torch.where(valid, start[:, None] + slot, 0)
    job, a, b = (valid[:, :, None] & valid[:, None, :]).nonzero(as_tuple=True)
    x = h[position].clone()
    x[read] += torch.cat([jobs[n].edit.rows for n in numbers]).to(x.dtype)
    own = table[job, a] * len(h) + position[table[job, b]]
    acts = touched([jobs[n] for n in numbers])
    return _Chunk(np.array(numbers), position, read, of_job, table, valid, own, acts, x)


def _propagate(block: PostNormBlock, chunk: _Chunk, k: Tensor, v: Tensor) -> Tensor:
    """The chunk's rows one layer on, `[row, d_model]`; `k`, `v` are the clean `[head, position, d_head]`."""
    q, k_own, v_own = block.heads(chunk.x)
    context = attend(q, k, v, k_own, v_own, chunk.own, chunk.table, chunk.valid)
    return block.finish(chunk.x, block.merge(context))


def _read(
    layer: int, sae: SparseAutoencoder, floor: Floor, h: Tensor, read: Tensor, chunks: Sequence[_Chunk]
) -> Iterator[Responses]:
    """Phase 4: edited minus clean activations, averaged over each job's own positions."""
    clean = sae.encode(h[read])
    for chunk in chunks:
        of_job, position = chunk.of_job[chunk.read], chunk.position[chunk.read]
        counts = torch.bincount(of_job, minlength=len(chunk.numbers))
        at = torch.searchsorted(read, position)
        before = mean_over_jobs(clean.rows(at), of_job, counts, sae.n_latents)
        after: Latents = sae.encode(chunk.x[chunk.read])
        delta = mean_over_jobs(after, of_job, counts, sae.n_latents) - before
        delta = floor.apply(delta, h[position], of_job)
        delta = torch.where(chunk.acts.to(delta.device)[:, None], delta, 0.0)
        yield Responses(layer, chunk.numbers, delta, before)
