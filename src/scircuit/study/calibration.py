"""How fast this device is: the study's own functions timed on a few random cells at the configured shapes.

A shallow model of the configured width stands for the whole one, since every layer costs the same; what is timed is
given per layer, per position or per multiply-add, and `amounts` multiplies it. Nothing is read but the shape.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from scircuit.config import RunConfig
from scircuit.features.catalogue import Catalogue, build_catalogue
from scircuit.features.coactivation import Limits, find_modules, match_layers
from scircuit.features.control import random_gene_control
from scircuit.features.detectors import one_gene_shares
from scircuit.features.enrichment import enrich
from scircuit.features.labels import label_features
from scircuit.features.quality import measure_quality
from scircuit.knowledge.gmt import packaged_programs
from scircuit.models.stream import residuals
from scircuit.sae.base import LinearSAE
from scircuit.sae.stack import Stack
from scircuit.study.shapes import RandomModel, Shape, random_cells, random_model, random_saes
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.plan import work_of
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace_setup
from scircuit.tracing.units import respond

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
    madd, test : float
        One multiply-add of a trace; and what is done once for every test (sums, p-values, tables).
    labels : float
        Enrichment, labels and the matching of layers, per dictionary.
    """

    forward: float
    step: float
    quality: float
    catalogue: float
    catalogue_fixed: float
    encode: float
    madd: float
    test: float
    labels: float


def calibrate(run: RunConfig, shape: Shape, length: int) -> Pace:
    """Time the run's shapes at `length` gene positions per cell: some seconds, also for a large model."""
    large = layer_madds(shape, length) > LARGE
    n_layers, short = min(2 if large else LAYERS, shape.n_layers), min(SHORT, length) if large else length
    longer = length / short
    model = random_model(shape, run.model, n_layers)
    s = run.sae
    saes = random_saes(model, range(n_layers), s.expansion, s.k)
    cells = random_cells(model, 1 if large else max(2, BATCH_TOKENS // length), short)
    batch = cells.batch(np.arange(len(cells)))
    n = len(batch)
    forward = _best(lambda: residuals(model, batch, [n_layers - 1])) / (n * n_layers)
    encode = _best(lambda: [saes[0].encode(h) for h in residuals(model, batch, [0])[0]]) / n - forward
    catalogue, fixed, labels = _catalogue(run, model, saes, batch, forward, n_layers)
    madd, test = _trace(run, model, saes, cells)
    return Pace(
        forward=forward * layer_madds(shape, length) / layer_madds(shape, short),
        step=_step(run, model),
        quality=max(_quality(model, saes, batch, forward, n_layers), 0.0) * longer,
        catalogue=catalogue * longer,
        catalogue_fixed=fixed,
        encode=max(encode, 0.0) * longer,
        madd=madd,
        test=test,
        labels=labels,
    )


def layer_madds(shape: Shape, length: int) -> int:
    """Multiply-adds of one block over one cell."""
    d = shape.d_model
    return length * (4 * d * d + 2 * d * shape.d_mlp) + 2 * length * length * d


def clock() -> float:
    """Seconds; of one thread without an accelerator its processor time, which a busy machine does not stretch."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    return time.process_time() if alone else time.perf_counter()


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
    one = batch if len(batch) < 4 else _cells_of(batch, 4)
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

    few = _cells_of(batch, max(1, len(batch) // 4))
    small, found = describe(few)
    labels = _labels(run, found, saes) / n_layers
    if len(batch) == len(few):
        return max(small / (len(few) * n_layers) - forward, 0.0), 0.0, labels
    small = min(small, describe(few)[0])
    slope = (describe(batch)[0] - small) / ((len(batch) - len(few)) * n_layers)
    return max(slope - forward, 0.0), max(small / n_layers - slope * len(few), 0.0), labels


def _labels(run: RunConfig, found: Catalogue, saes: dict[int, LinearSAE]) -> float:
    """Enrichment in the packaged programs, its control, and the matching of neighbouring dictionaries."""
    f, sets = run.features, [packaged_programs()]
    started = clock()
    terms = enrich(found.features, sets, found.background, alpha=f.alpha, min_overlap=f.min_overlap).terms
    label_features(found.features, terms)
    if f.control_draws and found.features["top_genes"].map(len).any():
        random_gene_control(found.features, sets, found.background, draws=f.control_draws, min_overlap=f.min_overlap)
    if f.min_cosine is not None and len(saes) > 1:
        match_layers({i: sae.W_dec for i, sae in saes.items()}, min_cosine=f.min_cosine)
    return clock() - started


def _cells_of(batch: Any, n: int) -> Any:
    from scircuit.cells.batch import TokenBatch

    values = None if batch.values is None else batch.values[:n]
    return TokenBatch(batch.tokens[:n], batch.role[:n], batch.gene[:n], batch.cell[:n], values)


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


def _trace(run: RunConfig, model: RandomModel, saes: dict[int, LinearSAE], cells: Any) -> tuple[float, float]:
    """Seconds per multiply-add of ablations from layer 0 by the engine of the run, and per test of a whole trace."""
    settings = replace(run.trace, groups=(), units=None, targets=(), n_random=0)
    settings = replace(settings, engine="local" if settings.engine == "local" else "exact")
    layer = 0
    batch = cells.batch(np.arange(min(len(cells), max(1, settings.tokens // (8 * int(cells.lengths.max()))))))
    clean = clean_batch(model, saes[layer], batch, layer)
    live = clean.latents[0].indices[clean.latents[0].values > 0].unique().tolist()[: 2 if len(cells) == 1 else 8]
    setup = Setup.of(model, saes, cells.subset(np.arange(len(batch))), {layer: live}, settings)
    planned = setup.todo[layer]

    def ablate() -> None:
        again = clean_batch(model, saes[layer], batch, layer)
        for _ in respond(setup, again, make_jobs(again, saes[layer], planned)):
            pass

    spent = _best(ablate)
    madd = spent / work_of(setup, clean, make_jobs(clean, saes[layer], planned))
    with tempfile.TemporaryDirectory(prefix="scircuit_plan_") as folder:
        started = clock()
        trace_setup(setup.by("exact"), folder)
        whole = clock() - started
    n_tests = len(planned) * len(setup.targets[layer]) * saes[layer].n_latents
    return madd, max(whole - spent, 0.0) / n_tests
