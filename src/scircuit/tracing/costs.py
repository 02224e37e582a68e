"""Multiply-adds of the engines, counted by formula: what `plan` predicts and what the benchmarks compare.

One multiply-add is two floating-point operations. Counted are the products: linear layers, attention scores and
weighted values, SAE encoders. Norms, softmax, TopK and sums are left out (below 1 % at d = 1,152). With L positions,
width d and MLP width m, a block takes L (4 d^2 + 2 d m) + 2 L^2 d; a row alone 4 d^2 + 2 d m + 2 L d.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from scircuit.models.stack import BlockStack
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.engines.clean import CleanBatch, Job, edited_positions, packed
from scircuit.tracing.engines.exact import pack
from scircuit.tracing.setup import Setup


def block_madds(model: BlockStack, n_rows: int, n_keys: int) -> int:
    """Of one block for `n_rows` positions that attend to `n_keys`, keys and values of those positions included."""
    d, m = _widths(model)
    return n_rows * (4 * d * d + 2 * d * m + 2 * n_keys * d)


def forward_madds(model: BlockStack, length: int, n_layers: int | None = None) -> int:
    """Of the first `n_layers` blocks (default all) over one cell of `length` positions."""
    return (model.n_layers if n_layers is None else n_layers) * block_madds(model, length, length)


def clean_madds(setup: Setup, clean: CleanBatch) -> int:
    """Of the clean side: the forward up to the source layer and the encoding of every gene position."""
    model, saes, _ = _parts(setup, clean)
    n_cells, width, d = clean.h.shape
    n_genes = sum(map(len, clean.positions))
    return n_cells * forward_madds(model, width, clean.layer + 1) + n_genes * d * saes[clean.layer].n_latents


def kept_madds(setup: Setup, length: int) -> int:
    """Of one cell under one variant of `probes.kept`: the whole forward, and the encoding of every position."""
    assert isinstance(setup.model, BlockStack)
    n_latents = sum(sae.n_latents for sae in setup.saes.values())
    return forward_madds(setup.model, length) + length * setup.model.d_model * n_latents


def exact_madds(setup: Setup, clean: CleanBatch, jobs: Sequence[Job]) -> int:
    """Of `suffix_responses`, every edited row taken as changed."""
    model, saes, targets = _parts(setup, clean)
    d, m = _widths(model)
    lengths = clean.batch.lengths
    last = max(targets)
    n_between = last - clean.layer - 1
    total = n_read_last = 0
    for numbers in pack(jobs, max(2, setup.settings.tokens // clean.h.shape[1])):
        chunk = [jobs[n] for n in numbers]
        reads = _n_read(chunk)
        width = max(int(lengths[cell]) for cell in reads)
        deepest = max(reads.values()) * (2 * d * d + 2 * d * m + 2 * width * d) + width * 2 * d * d
        total += (len(reads) + len(chunk)) * (n_between * block_madds(model, width, width) + deepest)
        n_read_last += sum(reads.values())
    n_edited = sum(len(job.edit.positions) for job in jobs)
    n_clean = sum(_n_read(jobs).values())
    encoded = sum((n_edited + (n_read_last if t == last else n_clean)) * saes[t].n_latents for t in targets)
    return total + encoded * d


def _n_read(jobs: Sequence[Job]) -> dict[int, int]:
    """Distinct positions that the jobs read, per cell."""
    return {cell: len(torch.cat(positions).unique()) for cell, positions in edited_positions(jobs).items()}


def local_madds(setup: Setup, clean: CleanBatch, jobs: Sequence[Job]) -> int:
    """Of `local_responses`: clean keys and values once per layer, then the edited rows."""
    model, saes, targets = _parts(setup, clean)
    context_rows, d = setup.settings.context_rows or 0.0, model.d_model
    n_latents = sum(saes[t].n_latents for t in targets)
    n_layers = max(targets) - clean.layer
    total = 0
    for cell, positions in edited_positions(jobs).items():
        length = int(clean.batch.lengths[cell])
        own = [len(p) for p in positions]
        sizes = [n + min(length - n, math.ceil(min(context_rows * n, length))) for n in own]
        per_layer = block_madds(model, length, length)
        for chunk in packed(
            sorted(sizes), int, max(1, setup.settings.score_bytes // (4 * model.block(0).n_heads * length))
        ):
            per_layer += block_madds(model, sum(chunk), length) + 2 * len(chunk) * max(chunk) ** 2 * d
        context = length * 3 * d * d + length * length * d if context_rows > 0 else 0
        read = len(torch.cat(positions).unique()) + sum(own)
        total += context + n_layers * per_layer + read * d * n_latents
    return total


def _parts(setup: Setup, clean: CleanBatch) -> tuple[BlockStack, Mapping[int, SparseAutoencoder], Sequence[int]]:
    assert isinstance(setup.model, BlockStack)
    return setup.model, setup.saes, setup.targets[clean.layer]


def _widths(model: BlockStack) -> tuple[int, int]:
    return model.d_model, model.block(0).up.out_features
