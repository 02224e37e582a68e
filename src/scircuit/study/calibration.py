"""How fast this device is: the study's own functions timed on a few random cells at the configured shapes.

A shallow model of the configured width stands for the whole one, since every layer costs the same; what is timed is
given per layer, per position or per multiply-add, and `amounts` multiplies it. Nothing is read but the shape.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from scircuit.cells.tokens import TokenStore
from scircuit.config import RunConfig
from scircuit.features.annotation import CorrectedRule
from scircuit.features.catalogue import Catalogue, build_catalogue
from scircuit.features.coactivation import Limits, find_modules, match_layers
from scircuit.features.detectors import one_gene_shares
from scircuit.features.quality import measure_quality
from scircuit.knowledge.gmt import packaged_programs
from scircuit.models.registry import Shape
from scircuit.models.stream import residuals
from scircuit.sae.base import LinearSAE
from scircuit.sae.stack import Stack
from scircuit.study.shapes import RandomModel, random_cells, random_model, random_saes
from scircuit.tracing.costs import block_madds
from scircuit.tracing.plan import Pace as TracePace
from scircuit.tracing.plan import calibrate as calibrate_trace
from scircuit.tracing.plan import clock
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup

LAYERS = 3
"""Most layers of the model that is timed."""
ENOUGH = 0.5
"""Seconds after which a repeated measurement stops."""
LARGE = 2_000_000_000
"""Multiply-adds of one layer over one cell beyond which shorter cells are timed in two layers, and scaled up."""
SHORT = 384
"""Gene positions of those."""
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Pace:
    """Seconds of this device for one unit of each kind of work."""

    forward: float
    """One cell through one layer."""
    step: float
    """One optimiser step of one dictionary."""
    quality: float
    """Measuring one dictionary on one cell, the forwards left out."""
    catalogue: float
    catalogue_fixed: float
    """Describing one dictionary's latents on one cell, the forward left out; and once per dictionary."""
    encode: float
    """Encoding one cell by one dictionary."""
    labels: float
    """Enrichment, labels and the matching of layers, per dictionary."""


@dataclass(frozen=True)
class Timed:
    """What is timed in place of a run: a few layers of its width, and a few cells."""

    model: RandomModel
    saes: dict[int, LinearSAE]
    cells: TokenStore


def shallow(run: RunConfig, shape: Shape, whole: RandomModel, length: int) -> Timed:
    """Few layers, and few cells of `length` gene positions, or one of a part of it where that is much."""
    large = block_madds(whole, length, length) > LARGE
    model = random_model(shape, run.model, min(2 if large else LAYERS, shape.n_layers), run.model.device)
    saes = random_saes(model, range(model.n_layers), run.sae.expansion, run.sae.k)
    n_cells, length = (1, min(SHORT, length)) if large else (max(2, BATCH_TOKENS // length), length)
    return Timed(model, saes, random_cells(model, n_cells, length))


def trace_pace(timed: Timed, settings: TraceSettings) -> TracePace:
    """Pace of ablations by the engine that the settings name, as `scircuit plan` times it."""
    plain = replace(settings, groups=(), units=None, targets=(), n_random=0)
    every = {0: range(timed.saes[0].n_latents)}
    return calibrate_trace(Setup.of(timed.model, timed.saes, timed.cells, every, plain))


def calibrate(run: RunConfig, timed: Timed, length: int) -> Pace:
    """Time the run's shapes at `length` gene positions per cell: some seconds, also for a large model."""
    model, saes, cells = timed.model, timed.saes, timed.cells
    n_layers, batch = model.n_layers, cells.batch(np.arange(len(cells)))
    n, short = len(batch), int(cells.lengths.max())
    longer = length / short
    forward = _best(lambda: residuals(model, batch, [n_layers - 1])) / (n * n_layers)
    encode = _best(lambda: [saes[0].encode(h) for h in residuals(model, batch, [0])[0]]) / n - forward
    catalogue, fixed, labels = _catalogue(run, model, saes, batch, forward, n_layers)
    return Pace(
        forward=forward * block_madds(model, length, length) / block_madds(model, short, short),
        step=_step(run, model),
        quality=max(_quality(model, saes, batch, forward, n_layers), 0.0) * longer,
        catalogue=catalogue * longer,
        catalogue_fixed=fixed,
        encode=max(encode, 0.0) * longer,
        labels=labels,
    )


def _best(work: Callable[[], Any], most: int = 5) -> float:
    """Median seconds of a few repetitions, the first left out: it also warms up."""
    times: list[float] = []
    while len(times) < most and (len(times) < 2 or sum(times) < ENOUGH):
        started = clock()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clock() - started)
        if times[0] > 2 * ENOUGH:
            break
    return float(np.median(times[1:] or times))


def _quality(model: RandomModel, saes: dict[int, LinearSAE], batch: Any, forward: float, n_layers: int) -> float:
    """The forwards are counted as `quality_layers` counts them; the rest is encoding, decoding and losses."""
    one = batch if len(batch) < 4 else batch.take(np.arange(4))
    spent = _best(lambda: (measure_quality(model, saes, [one]), one_gene_shares(model, saes, [one])), most=2)
    passes = quality_layers(n_layers, range(n_layers))
    return (spent / len(one) - passes * forward) / n_layers


def quality_layers(n_layers: int, layers: Sequence[int]) -> int:
    """Layers that measuring dictionaries passes a cell through: clean, masked, one-gene, and two suffixes per layer."""
    deepest = max(layers) + 1
    return 2 * deepest + n_layers + sum(2 * (n_layers - 1 - layer) for layer in layers)


def _catalogue(
    run: RunConfig, model: RandomModel, saes: dict[int, LinearSAE], batch: Any, forward: float, n_layers: int
) -> tuple[float, float, float]:
    """Per cell and dictionary, from two numbers of cells; what does not grow with cells; and the labels."""
    f = run.features
    limits = Limits() if f.coactivation else None

    def describe(cells: Any) -> tuple[float, Catalogue]:
        started = clock()
        found = build_catalogue(model, [cells], saes, coactivation=limits, min_firings=f.min_firings)
        if found.coactivation is not None:
            find_modules(found.coactivation)
        return clock() - started, found

    few = batch.take(np.arange(max(1, len(batch) // 4)))
    small, found = describe(few)
    labels = _labels(run, found, saes) / n_layers
    if len(batch) == len(few):
        return max(small / (len(few) * n_layers) - forward, 0.0), 0.0, labels
    small = min(small, describe(few)[0])
    slope = (describe(batch)[0] - small) / ((len(batch) - len(few)) * n_layers)
    return max(slope - forward, 0.0), max(small / n_layers - slope * len(few), 0.0), labels


def _labels(run: RunConfig, found: Catalogue, saes: dict[int, LinearSAE]) -> float:
    """Enrichment in the packaged programs, its control, and the matching of neighbouring dictionaries."""
    f = run.features
    rule = CorrectedRule([packaged_programs()], f.alpha, f.min_overlap)
    started = clock()
    rule.annotate(found.features, found.background)
    if f.control_draws and found.features["top_genes"].map(len).any():
        rule.control(found.features, found.background, draws=f.control_draws, seed=0)
    if f.min_cosine is not None and len(saes) > 1:
        match_layers({i: sae.W_dec for i, sae in saes.items()}, min_cosine=f.min_cosine)
    return clock() - started


def _step(run: RunConfig, model: RandomModel) -> float:
    """One optimiser step of one dictionary; large batches are extrapolated from two smaller ones."""
    settings = run.sae

    def spent(n: int) -> float:
        rows = torch.randn(1, n, model.d_model, device=model.device)
        stack = Stack(settings, [0], rows)
        return _best(lambda: stack.step(rows))

    if settings.batch_rows * settings.n_latents(model.d_model) * model.d_model < LARGE:
        return spent(settings.batch_rows)
    few, more = settings.batch_rows // 16, settings.batch_rows // 8
    least, most = spent(few), spent(more)
    return least + (most - least) / (more - few) * (settings.batch_rows - few)
