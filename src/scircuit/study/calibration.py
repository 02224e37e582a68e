"""How fast this device is: the study's own functions timed on a few random cells at the configured shapes.

A shallow model of the configured width stands for the whole one, since every layer costs the same; what is timed is
given per layer, per position or per multiply-add, and `amounts` multiplies it. Nothing is read but the shape.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scircuit.config import RunConfig
from scircuit.features.catalogue import build_catalogue
from scircuit.features.coactivation import Limits, find_modules
from scircuit.features.detectors import one_gene_shares
from scircuit.features.quality import measure_quality
from scircuit.models.stack import BlockStack
from scircuit.models.stream import residuals
from scircuit.pipeline.opening import sae_training, trace_settings
from scircuit.sae.base import LinearSAE
from scircuit.sae.stack import Stack
from scircuit.study.shapes import Shape, random_cells, random_model, random_saes
from scircuit.tracing.clean import clean_batch, make_jobs
from scircuit.tracing.interventions import Intervention
from scircuit.tracing.plan import work_of
from scircuit.tracing.units import respond

LAYERS = 3
"""Layers of the model that is timed."""
ENOUGH = 1.0
"""Seconds after which a repeated measurement stops."""
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Pace:
    """Seconds of this device for one unit of each kind of work.

    Attributes
    ----------
    forward : float
        One cell through one layer.
    step : float
        One optimiser step of one dictionary.
    quality : float
        Measuring one dictionary on one cell, the forwards left out.
    catalogue, catalogue_fixed : float
        Describing one dictionary's latents on one cell, the forward left out; and once per dictionary.
    encode : float
        Encoding one cell by one dictionary.
    madd : float
        One multiply-add of a trace.
    """

    forward: float
    step: float
    quality: float
    catalogue: float
    catalogue_fixed: float
    encode: float
    madd: float


def calibrate(run: RunConfig, shape: Shape, length: int) -> Pace:
    """Time the run's shapes at `length` gene positions per cell; takes seconds on a small model, some more on a large one."""
    n_layers = min(LAYERS, shape.n_layers)
    model = random_model(shape, run.model, n_layers)
    s = run.sae
    saes = random_saes(model, range(n_layers), s.expansion, s.k)
    at_once = max(1, BATCH_TOKENS // length)
    cells = random_cells(model, max(2, at_once), length)
    batch = cells.batch(np.arange(min(at_once, len(cells))))
    n = len(batch)
    forward = _best(lambda: residuals(model, batch, [n_layers - 1])) / (n * n_layers)
    encode = _best(lambda: [saes[0].encode(h) for h in residuals(model, batch, [0])[0]]) / n - forward
    quality = _quality(model, saes, batch, forward, n_layers)
    catalogue, fixed = _catalogue(run, model, saes, batch, forward, n_layers)
    return Pace(
        forward=forward,
        step=_step(run, model, length),
        quality=max(quality, 0.0),
        catalogue=catalogue,
        catalogue_fixed=fixed,
        encode=max(encode, 0.0),
        madd=_trace(run, model, saes, cells),
    )


def _best(work: Callable[[], Any], most: int = 5) -> float:
    """Least seconds of a few repetitions; the first also warms up."""
    times: list[float] = []
    while len(times) < most and (len(times) < 2 or sum(times) < ENOUGH):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if times[0] > 2 * ENOUGH:
            break
    return min(times)


def _quality(model: BlockStack, saes: dict[int, LinearSAE], batch: Any, forward: float, n_layers: int) -> float:
    """The forwards are counted as `quality_layers` counts them; the rest is encoding, decoding and losses."""
    one = batch if len(batch) < 4 else _cells_of(batch, 4)
    spent = _best(lambda: (measure_quality(model, saes, [one]), one_gene_shares(model, saes, [one])), most=2)
    passes = quality_layers(n_layers, range(n_layers))
    return (spent / len(one) - passes * forward) / n_layers


def quality_layers(n_layers: int, layers: Sequence[int]) -> int:
    """Layers that measuring dictionaries passes a cell through: clean, masked, one-gene, and two suffixes per layer."""
    deepest = max(layers) + 1
    return 2 * deepest + n_layers + sum(2 * (n_layers - 1 - layer) for layer in layers)


def _catalogue(
    run: RunConfig, model: BlockStack, saes: dict[int, LinearSAE], batch: Any, forward: float, n_layers: int
) -> tuple[float, float]:
    """Per cell and dictionary, from two numbers of cells; what does not grow with cells is the fixed part."""
    limits = Limits() if run.features.coactivation else None

    def describe(cells: Any) -> float:
        started = time.perf_counter()
        found = build_catalogue(model, [cells], saes, coactivation=limits, min_firings=run.features.min_firings)
        if found.coactivation is not None:
            find_modules(found.coactivation)
        return time.perf_counter() - started

    few, many = _cells_of(batch, max(1, len(batch) // 4)), batch
    describe(few)
    small = describe(few)
    if len(many) == len(few):
        return max(small / (len(few) * n_layers) - forward, 0.0), 0.0
    slope = (describe(many) - small) / ((len(many) - len(few)) * n_layers)
    return max(slope - forward, 0.0), max(small / n_layers - slope * len(few), 0.0)


def _cells_of(batch: Any, n: int) -> Any:
    from scircuit.cells.batch import TokenBatch

    values = None if batch.values is None else batch.values[:n]
    return TokenBatch(batch.tokens[:n], batch.role[:n], batch.gene[:n], batch.cell[:n], values)


def _step(run: RunConfig, model: BlockStack, length: int) -> float:
    """Optimiser steps of one dictionary at the configured batch."""
    settings = sae_training(run, run.seed)
    rows = torch.randn(1, settings.batch_rows, model.d_model, device=model.device)
    stack = Stack(settings, [0], rows)
    return _best(lambda: stack.step(rows))


def _trace(run: RunConfig, model: BlockStack, saes: dict[int, LinearSAE], cells: Any) -> float:
    """Seconds per multiply-add of ablations from layer 0 through the shallow model, by the engine of the run."""
    settings = trace_settings(run)
    context = settings.context_rows or 0.0 if run.trace.engine == "local" else None
    layer, targets = 0, list(range(1, model.n_layers))
    one = cells.batch(np.arange(1))
    clean = clean_batch(model, saes[layer], one, layer)
    live = clean.latents[0].indices[clean.latents[0].values > 0].unique().tolist()
    planned = [Intervention((int(f),)) for f in live[: max(2, min(16, settings.tokens // cells.lengths[0]))]]

    def ablate() -> None:
        again = clean_batch(model, saes[layer], one, layer)
        jobs = make_jobs(again, saes[layer], planned)
        for _ in respond(model, saes, again, jobs, targets, context_rows=context, tokens=settings.tokens):
            pass

    engine = "exact" if context is None else "local"
    return _best(ablate) / work_of(model, saes, clean, planned, targets, settings, engine)
