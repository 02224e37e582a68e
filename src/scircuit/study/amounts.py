"""How much work each stage of a study is, counted from the file alone: cells, forwards, steps, ablations, bytes.

What a trace is, and what it costs, is said by `scircuit.tracing`; here it is given a model of the right shape. Cells
that are drawn are those of the file where it is here, the configured `n` otherwise. Where features are not there yet,
sources are taken to fire at the mean rate of a latent, but no less than their rule allows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from scircuit.cells.tokens import TokenStore
from scircuit.circuits.schema import DECOYS
from scircuit.config import DataSection, RunConfig
from scircuit.runs.trace import source_layers
from scircuit.sae.base import LinearSAE
from scircuit.study.calibration import Pace, Timed, quality_layers
from scircuit.study.shapes import RandomModel
from scircuit.tracing.costs import forward_madds
from scircuit.tracing.memory import dictionary_bytes, model_bytes
from scircuit.tracing.menu import parse_words, stand_ins
from scircuit.tracing.plan import Plan
from scircuit.tracing.setup import Setup

_ADAM = 4
"""Copies of a dictionary that training holds: parameters, gradients, two moments."""


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

    def __add__(self, other: "Load") -> "Load":
        """One after the other."""
        both = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Load(**both | {"memory": max(self.memory, other.memory)})


@dataclass(frozen=True)
class Sizes:
    """What a run's cells are.

    `n_cells` drawn of [cells]; `mixed` of each data set of `sae.mix`; `length` mean gene positions per cell; `tokenize`
    seconds per cell; `cells` some of them, or made up where none could be looked at (`counted` False).
    """

    n_cells: int
    length: int
    tokenize: float
    counted: bool
    cells: TokenStore
    mixed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outlook:
    """A run before it runs: `model` is whole, but on torch's meta device; `sae` stands for that of every layer."""

    run: RunConfig
    model: RandomModel
    sae: LinearSAE
    sizes: Sizes
    timed: Timed
    pace: Pace

    @property
    def layers(self) -> list[int]:
        """Layers with a dictionary."""
        return list(self.run.sae.layers) or list(range(self.model.n_layers))

    @property
    def saes(self) -> dict[int, LinearSAE]:
        """The dictionaries."""
        return dict.fromkeys(self.layers, self.sae)

    @property
    def deep(self) -> int:
        """Layers up to the last with a dictionary."""
        return max(self.layers) + 1

    def cells(self, name: str, most: int | None = None) -> int:
        """Cells of a split of [cells], at most `most`."""
        there = split(self.run.cells, self.sizes.n_cells, name)
        return there if most is None else min(most, there)

    def madds(self, n_layers: int) -> int:
        """Multiply-adds of a cell in the first layers."""
        return forward_madds(self.model, self.sizes.length, n_layers)

    @property
    def firing_rate(self) -> float:
        """Firings of a source per gene position."""
        least = self.run.sources.min_frequency if self.run.sources.rule.endswith("annotated") else 0.0
        return min(1.0, max(least, (self.sae.config.k or 1) / self.sae.n_latents))


def split(section: DataSection, n: int, name: str) -> int:
    """Cells of a split."""
    return round(n * section.shares.get(name, 0.0))


def _mixed(o: Outlook) -> int:
    """Cells of other data sets, of which only those that teach are read."""
    return sum(split(part, o.sizes.mixed[part.name], "train") for part in o.run.sae.mix)


def training(o: Outlook) -> Load:
    """A dictionary's stage: tokens, the stream of activations, optimiser steps, quality."""
    s, length, d, n_layers = o.run.sae, o.sizes.length, o.model.d_model, len(o.layers)
    n_train = _mixed(o) or o.cells("train")
    rows = n_train * length
    capacity = max(1, s.buffer_rows // s.batch_rows) * s.batch_rows
    blocks = math.ceil(s.n_steps / max(1, min(capacity, rows) // s.batch_rows))
    # A first epoch that fits stays in the buffer, and the model is not run again.
    passed = n_train if rows <= capacity else math.ceil(blocks * capacity / length)
    dictionaries = dictionary_bytes(o.saes)
    return quality(o) + Load(
        seconds=passed * o.deep * o.pace.forward
        + s.n_steps * n_layers * o.pace.step * (1 + s.stability_seeds)
        + tokenizing(o),
        clean=passed,
        madds=passed * o.madds(o.deep),
        memory=model_bytes(o.model) + _ADAM * dictionaries + n_layers * min(capacity, max(rows, s.batch_rows)) * d * 4,
        disk=dictionaries + o.sizes.n_cells * length * 20,
    )


def tokenizing(o: Outlook) -> float:
    """Seconds to read and tokenise the drawn cells."""
    return (o.sizes.n_cells + (0 if o.run.sae.path else _mixed(o))) * o.sizes.tokenize


def quality(o: Outlook) -> Load:
    """Measuring the dictionaries on cells of the catalogue split."""
    n = o.cells("catalogue", o.run.sae.quality_cells)
    passes = quality_layers(o.model.n_layers, o.layers)
    return Load(
        seconds=n * (passes * o.pace.forward + len(o.layers) * o.pace.quality),
        clean=n * 3,
        madds=n * o.madds(passes),
    )


def describing(o: Outlook) -> Load:
    """A condition's features: quality of the dictionaries on its cells, the catalogue."""
    n, n_layers, n_latents = o.cells("catalogue"), len(o.layers), o.sae.n_latents
    dictionaries = dictionary_bytes(o.saes)
    return quality(o) + Load(
        seconds=n * (o.deep * o.pace.forward + n_layers * o.pace.catalogue)
        + n_layers * (o.pace.catalogue_fixed + o.pace.labels),
        clean=n,
        madds=n * o.madds(o.deep),
        memory=model_bytes(o.model) + dictionaries + n_layers * n_latents**2 * 4,
        disk=dictionaries + n_layers * n_latents * 2000,
    )


def pairs(o: Outlook) -> Load:
    """The pass that counts pairs of a source and a later latent without intervention."""
    n = o.cells("catalogue", o.run.features.pair_cells)
    together = o.deep * o.pace.forward + len(o.layers) * max(o.pace.encode, o.pace.catalogue / 2)
    return Load(seconds=n * together, clean=n)


def traced(o: Outlook) -> Setup:
    """A condition's trace as the tracer is given it, the decoys of the kind that needs no model.

    Every kind of decoy costs the same.
    """
    r, n_latents = o.run.sources, o.sae.n_latents
    n = n_latents if r.rule == "all" else min(r.n, n_latents)
    sources = {layer: list(range(n)) for layer in source_layers(o.run, o.layers)}
    if r.rule == "list":
        sources = {layer: [f for at, f in sorted(set(r.latents)) if at == layer] for layer, _ in sorted(r.latents)}
    words = parse_words(o.run.trace.interventions)
    extra = {layer: stand_ins(words, [(f,) for f in mine]) for layer, mine in sources.items()} if words else None
    return Setup.of(o.model, o.saes, o.sizes.cells, sources, replace(o.run.trace, decoy="radial"), extra)


def confirmed(o: Outlook, setup: Setup) -> Setup:
    """The trace again as it is confirmed: exactly, by some of the sources, without decoys."""
    most = o.run.confirmation.max_sources
    sources = {layer: features[:most] for layer, features in setup.sources.items()}
    settings = replace(setup.settings, engine="exact", n_random=0, groups=())
    return Setup.of(setup.model, setup.saes, setup.cells, sources, settings)


def tracing(setup: Setup, plan: Plan) -> Load:
    """A planned trace."""
    ablated = plan.table.set_index("layer")["n_ablated"]
    decoys = {layer: sum(i.kind in DECOYS for i in todo) / len(todo) for layer, todo in setup.todo.items()}
    random = round(sum(ablated[layer] * share for layer, share in decoys.items()))
    return Load(
        seconds=float(plan.table["seconds"].sum()),
        clean=int(plan.table["n_clean"].sum()),
        ablated=int(ablated.sum()) - random,
        random=random,
        madds=float(plan.table["madds"].sum()),
        memory=plan.memory.peak,
        disk=plan.disk,
    )


def expected_tests(setup: Setup) -> int:
    """Tests of a condition: every latent of every target layer of every source."""
    of_target = {layer: sum(setup.saes[t].n_latents for t in targets) for layer, targets in setup.targets.items()}
    return sum(len(features) * of_target[layer] for layer, features in setup.sources.items())
