"""How much work each stage of a study is, counted from the file alone: cells, forwards, steps, ablations, bytes.

Cells that are drawn are those of the file where it is here, the configured `n` otherwise. Where features are not there
yet, sources are taken to fire in a cell with the chance that their least allowed firing rate gives them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from scircuit.config import DataSection, RunConfig
from scircuit.sae.base import LinearSAE
from scircuit.study.calibration import Pace, layer_madds, quality_layers
from scircuit.study.shapes import RandomModel, Shape, random_cells
from scircuit.tracing.engines.clean import CleanBatch, Job
from scircuit.tracing.engines.costs import exact_madds, local_madds
from scircuit.tracing.engines.interventions import Edit
from scircuit.tracing.memory import plan_memory
from scircuit.tracing.setup import Setup

_ADAM = 4
"""Copies of a dictionary that training holds: parameters, gradients, two moments."""
_MOMENT_BYTES, _EFFECT_BYTES = 40, 16
_RESPONDING = 0.2
"""Share of latents that respond to an ablation in a cell; decides disk, not time."""


@dataclass(frozen=True)
class Load:
    """What one stage does.

    `seconds` is its work at the pace of this device; `clean` and `ablated` are forward passes; `madds` multiply-adds of
    passes and ablations; `memory` bytes at the peak, weights included; `disk` bytes it writes.
    """

    seconds: float = 0.0
    clean: int = 0
    ablated: int = 0
    random: int = 0
    madds: float = 0.0
    memory: int = 0
    disk: int = 0


@dataclass(frozen=True)
class Sizes:
    """What a run's cells are: how many are drawn of each data set, and gene positions of a cell.

    `n_cells` of [cells]; `mixed` of each data set of `sae.mix`; `length` mean gene positions per cell; `tokenize`
    seconds per cell; `counted` whether cells were looked at, or `length` is assumed.
    """

    n_cells: int
    length: int
    tokenize: float
    counted: bool
    mixed: Mapping[str, int] = field(default_factory=dict)


def layers_of(run: RunConfig, shape: Shape) -> list[int]:
    """Layers with a dictionary."""
    return list(run.sae.layers) or list(range(shape.n_layers))


def split(section: DataSection, n: int, name: str) -> int:
    """Cells of a split."""
    return round(n * section.shares.get(name, 0.0))


def training(run: RunConfig, shape: Shape, sizes: Sizes, pace: Pace) -> Load:
    """A dictionary's stage: tokens, the stream of activations, optimiser steps, quality."""
    layers = layers_of(run, shape)
    s = run.sae
    n_train = sum(split(part, sizes.mixed[part.name], "train") for part in s.mix) or split(
        run.cells, sizes.n_cells, "train"
    )
    rows = n_train * sizes.length
    capacity = max(1, s.buffer_rows // s.batch_rows) * s.batch_rows
    blocks = math.ceil(s.n_steps / max(1, min(capacity, rows) // s.batch_rows))
    # A first epoch that fits stays in the buffer, and the model is not run again.
    passed = n_train if rows <= capacity else math.ceil(blocks * capacity / sizes.length)
    deep = max(layers) + 1
    d, n_latents = shape.d_model, run.sae.n_latents(shape.d_model)
    parameters = len(layers) * (2 * d * n_latents + n_latents + d) * 4
    seconds = (
        passed * deep * pace.forward
        + s.n_steps * len(layers) * pace.step * (1 + s.stability_seeds)
        + tokenizing(run, sizes)
    )
    measured = quality(run, shape, sizes, pace)
    return Load(
        seconds=seconds + measured.seconds,
        clean=passed + measured.clean,
        madds=passed * deep * layer_madds(shape, sizes.length) + measured.madds,
        memory=weights(shape) + _ADAM * parameters + len(layers) * min(capacity, max(rows, s.batch_rows)) * d * 4,
        disk=parameters + sizes.n_cells * sizes.length * 20,
    )


def tokenizing(run: RunConfig, sizes: Sizes) -> float:
    """Seconds to read and tokenise the drawn cells; of other data sets only those that teach."""
    mixed = sum(split(part, sizes.mixed[part.name], "train") for part in run.sae.mix) if not run.sae.path else 0
    return (sizes.n_cells + mixed) * sizes.tokenize


def quality(run: RunConfig, shape: Shape, sizes: Sizes, pace: Pace) -> Load:
    """Measuring the dictionaries on cells of the catalogue split."""
    layers = layers_of(run, shape)
    n = min(run.sae.quality_cells, split(run.cells, sizes.n_cells, "catalogue"))
    passes = quality_layers(shape.n_layers, layers)
    return Load(
        seconds=n * (passes * pace.forward + len(layers) * pace.quality),
        clean=n * 3,
        madds=n * passes * layer_madds(shape, sizes.length),
    )


def describing(run: RunConfig, shape: Shape, sizes: Sizes, pace: Pace) -> Load:
    """A condition's features: quality of the dictionaries on its cells, the catalogue."""
    layers = layers_of(run, shape)
    n, deep = split(run.cells, sizes.n_cells, "catalogue"), max(layers) + 1
    measured = quality(run, shape, sizes, pace)
    d, n_latents = shape.d_model, run.sae.expansion * shape.d_model
    seconds = n * (deep * pace.forward + len(layers) * pace.catalogue) + len(layers) * (
        pace.catalogue_fixed + pace.labels
    )
    return Load(
        seconds=measured.seconds + seconds,
        clean=measured.clean + n,
        madds=measured.madds + n * deep * layer_madds(shape, sizes.length),
        memory=weights(shape) + len(layers) * (2 * d * n_latents * 4 + n_latents**2 * 4),
        disk=len(layers) * (2 * d * n_latents * 4 + n_latents * 2000),
    )


def tracing(
    run: RunConfig, shape: Shape, sizes: Sizes, pace: Pace, model: RandomModel, saes: Mapping[int, LinearSAE]
) -> Load:
    """A condition's trace, its confirmation, and the pass that counts pairs without intervention."""
    layers = layers_of(run, shape)
    available = split(run.cells, sizes.n_cells, "discovery")
    n_cells = available if run.trace.n_cells is None else min(run.trace.n_cells, available)
    held = split(run.cells, sizes.n_cells, "confirmation")
    n_again = held if run.confirmation.n_cells is None else min(run.confirmation.n_cells, held)
    found = Load()
    targets_of = _targets(run, layers)
    for layer, targets in targets_of.items():
        n = run.sources.n if run.sources.rule != "all" else saes[0].n_latents
        fires = chance_to_fire(run, saes[0], sizes.length)
        jobs = n * fires
        traced = _madds(run, shape, layer, targets, jobs * (1 + run.trace.n_random), sizes.length, model, saes, fires)
        again = min(n, n if run.confirmation.max_sources is None else run.confirmation.max_sources) * fires
        confirmed = _madds(run, shape, layer, targets, again, sizes.length, model, saes, fires) if n_again else 0.0
        n_tests = (n * (1 + run.trace.n_random) + (again if n_again else 0)) * len(targets) * saes[0].n_latents
        madds = n_cells * traced + n_again * confirmed
        found = replace(
            found,
            seconds=found.seconds + madds * pace.madd + n_tests * pace.test,
            clean=found.clean + n_cells + n_again,
            ablated=found.ablated + round(n_cells * jobs + n_again * again),
            random=found.random + round(n_cells * jobs * run.trace.n_random),
            madds=found.madds + madds,
            disk=found.disk + round(n_cells * jobs * len(targets) * saes[0].n_latents * _RESPONDING * _EFFECT_BYTES),
        )
    pairs = min(run.features.pair_cells, split(run.cells, sizes.n_cells, "catalogue"))
    deep = max(layers) + 1
    together = pairs * (deep * pace.forward + len(layers) * max(pace.encode, pace.catalogue / 2))
    sources = {layer: range(run.sources.n if run.sources.rule != "all" else saes[0].n_latents) for layer in targets_of}
    cells = random_cells(model, 1, sizes.length)
    memory = plan_memory(
        Setup(model, saes, cells, sources, targets_of, run.trace).by(_engine(run), run.trace.context_rows)
    )
    d, n_latents = shape.d_model, saes[0].n_latents
    whole = weights(shape) + len(layers) * 2 * d * n_latents * 4
    return replace(
        found,
        seconds=found.seconds + together,
        clean=found.clean + pairs,
        memory=whole + memory.moments + memory.batch,
    )


def expected_tests(run: RunConfig, shape: Shape, n_latents: int) -> float:
    """Tests of a condition: every latent of every target layer of every source."""
    targets = _targets(run, layers_of(run, shape))
    n = run.sources.n if run.sources.rule != "all" else n_latents
    return float(sum(n * len(t) * n_latents for t in targets.values()))


def _targets(run: RunConfig, layers: list[int]) -> dict[int, list[int]]:
    """Target layers of each source layer."""
    sources = list(run.sources.layers) or layers[:-1]
    allowed = run.trace.targets or tuple(layers)
    return {a: [b for b in allowed if b > a and b in layers] for a in sources if any(b > a for b in allowed)}


def _engine(run: RunConfig) -> str:
    if run.trace.engine != "auto":
        return run.trace.engine
    return "local" if run.sources.rule == "all" else "exact"


def chance_to_fire(run: RunConfig, sae: LinearSAE, length: int) -> float:
    """Chance that a source fires in a cell, at the mean firing rate of a latent but no less than sources may have."""
    rate = max(run.sources.min_frequency, (sae.config.k or 1) / sae.n_latents)
    return 1 - (1 - min(rate, 1.0)) ** length


def _madds(
    run: RunConfig,
    shape: Shape,
    layer: int,
    targets: list[int],
    n_jobs: float,
    length: int,
    model: RandomModel,
    saes: Mapping[int, LinearSAE],
    fires: float,
) -> float:
    """Multiply-adds of one cell: the clean pass, and `n_jobs` ablations by the engine of the run."""
    sae = saes[0]
    own = (layer + 1) * layer_madds(shape, length) + length * shape.d_model * sae.n_latents
    if n_jobs <= 0:
        return own
    rate = max(run.sources.min_frequency, (sae.config.k or 1) / sae.n_latents)
    edited = max(1, round(length * rate / max(fires, 1e-9)))
    whole = max(1, round(n_jobs))
    places = np.random.default_rng(0)
    jobs = [
        Job(
            i,
            0,
            Edit(torch.from_numpy(np.sort(places.choice(length, min(edited, length), replace=False))), torch.empty(0)),
        )
        for i in range(whole)
    ]
    batch = _Sized(np.array([length]))
    clean = CleanBatch(batch, layer, torch.empty(1, length, shape.d_model, device="meta"), [], [])  # type: ignore[arg-type]
    every = dict.fromkeys([layer, *targets], sae)
    settings = run.trace
    if _engine(run) == "exact":
        madds = exact_madds(model, every, clean, jobs, targets, tokens=settings.tokens)
    else:
        madds = local_madds(
            model, every, clean, jobs, targets, context_rows=settings.context_rows or 0.0,
            score_bytes=settings.score_bytes,
        )  # fmt: skip
    return own + madds * n_jobs / whole


@dataclass(frozen=True)
class _Sized:
    """A batch of which only the lengths are known."""

    lengths: np.ndarray


def weights(shape: Shape) -> int:
    """Bytes of a model in float32."""
    d = shape.d_model
    block = 4 * d * d + 2 * d * shape.d_mlp + 9 * d + shape.d_mlp
    embeddings = (shape.n_tokens + (shape.max_length if shape.kind == "geneformer" else 0)) * d
    return 4 * (shape.n_layers * block + embeddings)
