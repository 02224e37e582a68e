"""What a trace will take before it runs: forwards, multiply-adds, memory, disk, and time by a short calibration.

`plan_trace` counts the firings of a model that is there. `expect_trace` draws them at a rate, for a model of which only
the shape is known: its weights are on torch's meta device. All else (engine, batches, cost, memory) follows from the
setup, by the same code for both and for the trace.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from scircuit._wording import amount, duration
from scircuit.models.stack import BlockStack
from scircuit.models.stream import residuals
from scircuit.tracing.asking import Asking, asking_of
from scircuit.tracing.assemble import Assembly
from scircuit.tracing.costs import clean_madds, exact_madds, local_madds
from scircuit.tracing.engines.clean import CleanBatch, Job, clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Edit, Intervention
from scircuit.tracing.memory import MOMENT_BYTES, MemoryPlan, fit, plan_memory
from scircuit.tracing.parts import EFFECT_BYTES, Part, Unit, source_blocks
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.units import run_unit

_CALIBRATION_LAYERS = 3

Look = Callable[[int, int, Sequence[Sequence[Intervention]]], tuple[CleanBatch, Iterable[Sequence[Job]]]]
"""The clean side of a cell at a layer, and the jobs of each block of interventions there."""


@dataclass(frozen=True)
class Pace:
    """How fast a device traces by one engine."""

    work: float
    """Seconds per unit of work (`work_of`), measured on whole units of a trace."""
    test: float
    """Seconds per test once every cell is measured: p-values and tables."""
    density: float
    """Share of latents that respond to an ablation, which decides disk and not time, where responses are kept."""


@dataclass(frozen=True)
class Plan:
    """What a trace will take."""

    engine: str
    device: str
    """By which engine, and on what."""
    table: pd.DataFrame
    """One row per source layer: `layer, n_sources, n_targets` (target layers), `n_clean` and `n_ablated` forwards (for
    the local engine: cells passed and ablations propagated), `madds` (multiply-adds of all products; NaN for models
    that show no blocks) and `seconds`."""
    n_cells: int
    n_counted: int
    """Cells of the trace, and those on which firings were counted; forwards are exact where they are equal, scaled up
    otherwise, and expected by a firing rate where none was."""
    memory: MemoryPlan
    """Bytes at the peak."""
    disk: int
    """Bytes of the parts before they are summed."""
    settings: TraceSettings
    """As fitted to the memory budget."""
    faithfulness: Asking
    """The circuit as a whole, asked afterwards."""

    def lines(self) -> list[str]:
        """For the terminal."""
        total = self.table[["n_clean", "n_ablated", "madds", "seconds"]].sum(min_count=len(self.table))
        out = [f"{'layer':>5} {'sources':>8} {'targets':>8} {'clean':>9} {'ablated':>11} {'TFLOP':>10} {'time':>9}"]
        for layer, n_sources, n_targets, n_clean, n_ablated, madds, seconds in self.table.to_numpy().tolist():
            out.append(
                f"{layer:>5.0f} {n_sources:>8.0f} {n_targets:>8.0f} {n_clean:>9,.0f} {n_ablated:>11,.0f} "
                f"{2e-12 * madds:>10,.4g} {duration(seconds):>9}"
            )
        out.append(
            f"{'total':>5} {self.table['n_sources'].sum():>8} {'':>8} {int(total['n_clean']):>9,} "
            f"{int(total['n_ablated']):>11,} {2e-12 * total['madds']:>10,.4g} {duration(total['seconds']):>9}"
        )
        scaled = f"scaled up from {self.n_counted} cells" if self.n_counted else "expected from a firing rate"
        counted = "counted in every cell" if self.n_counted == self.n_cells else scaled
        return [
            *out,
            f"{self.engine} engine on {self.device}, {self.n_cells:,} cells; ablations {counted}",
            f"peak memory {amount(self.memory.peak)}: weights {amount(self.memory.weights)}, sums "
            f"{amount(self.memory.moments)}, batch {amount(self.memory.batch)}",
            f"disk while it runs {amount(self.disk)}",
            self.faithfulness.line(),
            *self.left_out(),
        ]

    def left_out(self) -> list[str]:
        """What the local engine does beyond what can be counted before it runs; nothing for the exact one."""
        if self.engine == "exact":
            return []
        out = [
            f"not in these numbers: the fidelity check ({self.settings.check_sources} sources per layer in "
            f"{min(self.settings.check_cells, self.n_cells)} cells, by both engines) and the exact confirmation of "
            "borderline edges, which depends on the result"
        ]
        if self.settings.context_rows is None:
            out.append("counted without context rows; if the check asks for some, time grows with (1 + context_rows)")
        return out


def plan_trace(setup: Setup, *, max_cells: int = 256, n_calibration: int = 8) -> Plan:
    """Plan the trace of a setup.

    Firings are counted by one clean pass over at most `max_cells` cells (seeded), the cost of an ablation by
    formula on three of them, and the speed of this device by `calibrate` with `n_calibration` ablations.
    """
    setup = fit(setup)
    n_cells = len(setup.cells)
    rng = np.random.default_rng([setup.settings.seed, 5])
    counted = np.sort(rng.choice(n_cells, min(max_cells, n_cells), replace=False))
    n_ablated = {layer: round(n * n_cells / len(counted)) for layer, n in _count_ablations(setup, counted).items()}
    sample = _short_to_long(setup, counted)

    def look(cell: int, layer: int, blocks: Sequence[Sequence[Intervention]]) -> tuple[CleanBatch, Iterator[list[Job]]]:
        clean = clean_batch(setup.model, setup.saes[layer], setup.cells.batch(np.array([cell])), layer)
        return clean, (make_jobs(clean, setup.saes[layer], block) for block in blocks)

    return _plan(setup, n_cells, len(counted), n_ablated, sample, look, calibrate(setup, n_calibration))


def expect_trace(setup: Setup, n_cells: int, rate: float, pace: Pace) -> Plan:
    """Plan the trace of a setup whose model is a shape: weights on torch's meta device, which hold nothing.

    The setup's cells are like the `n_cells` to be traced: their lengths count, the longest decides the memory. A source
    fires at the share `rate` of gene positions, drawn at random. `pace` is that of the setup's engine on the device
    that will trace (`calibrate`, of a model of the same widths).
    """
    setup = fit(setup)
    every = np.arange(len(setup.cells))
    fires = float(np.mean(1 - (1 - rate) ** setup.cells.lengths))
    n_ablated = {layer: round(n_cells * fires * len(planned)) for layer, planned in setup.todo.items()}

    def look(cell: int, layer: int, blocks: Sequence[Sequence[Intervention]]) -> tuple[CleanBatch, Iterator[list[Job]]]:
        batch = setup.cells.batch(np.array([cell]))
        genes = torch.from_numpy(np.flatnonzero(batch.is_gene[0]))
        clean = CleanBatch(
            batch, layer, torch.empty(*batch.tokens.shape, setup.model.d_model, device="meta"), [genes], []
        )
        return clean, _drawn_jobs(genes, blocks, rate, np.random.default_rng([cell, layer]))

    return _plan(setup, n_cells, 0, n_ablated, _short_to_long(setup, every), look, pace)


def _short_to_long(setup: Setup, cells: np.ndarray) -> list[int]:
    """The shortest, the median and the longest of some cells, by whose mean the others are taken to be."""
    order = cells[np.argsort(setup.cells.lengths[cells], kind="stable")].tolist()
    return list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))


def _plan(
    setup: Setup,
    n_cells: int,
    n_counted: int,
    n_ablated: Mapping[int, int],
    sample: Sequence[int],
    look: Look,
    pace: Pace,
) -> Plan:
    """The plan of a fitted setup; the cells of `sample` stand for all."""
    every = source_blocks(setup.units())
    n_parts = -(-n_cells // setup.settings.cells_per_block)
    rows, disk = [], 0
    for layer, planned in sorted(setup.todo.items()):
        blocks = [units[0].interventions for units in every if units[0].layer == layer]
        looks = (look(cell, layer, blocks) for cell in sample)
        work = n_cells * float(np.mean([sum(work_of(setup, clean, jobs) for jobs in each) for clean, each in looks]))
        latents = sum(setup.saes[t].n_latents for t in setup.targets[layer])
        disk += n_parts * len(planned) * latents * MOMENT_BYTES
        disk += int(n_ablated[layer] * latents * pace.density * EFFECT_BYTES)
        rows.append(
            {
                "layer": layer,
                "n_sources": len(setup.sources[layer]),
                "n_targets": len(setup.targets[layer]),
                "n_clean": n_cells * len(blocks),
                "n_ablated": n_ablated[layer],
                "madds": work if isinstance(setup.model, BlockStack) else np.nan,
                "seconds": work * pace.work + len(planned) * latents * pace.test,
            }
        )
    table, device = pd.DataFrame(rows), str(setup.model.device)
    asking = asking_of(setup, sample, pace.work)
    return Plan(setup.engine, device, table, n_cells, n_counted, plan_memory(setup), disk, setup.settings, asking)


def _count_ablations(setup: Setup, counted: np.ndarray) -> dict[int, int]:
    """(cell, intervention) pairs in which something is changed, per source layer; one pass for all layers."""
    todo = setup.todo
    found = dict.fromkeys(todo, 0)
    for batch in setup.cells.batches(1, cells=counted):
        states = residuals(setup.model, batch, list(todo))
        gene = torch.from_numpy(batch.is_gene[0])
        for layer, planned in todo.items():
            latents = setup.saes[layer].encode(states[layer][0, gene.to(states[layer].device)])
            live = set(latents.indices[latents.values > 0].unique().tolist())
            found[layer] += sum(not live.isdisjoint(i.features) for i in planned)
    return found


def _drawn_jobs(
    genes: torch.Tensor, blocks: Sequence[Sequence[Intervention]], rate: float, rng: np.random.Generator
) -> Iterator[list[Job]]:
    """Jobs of one cell whose latents fire at random; a decoy acts where its source does."""
    fired: dict[int, torch.Tensor] = {}
    for block in blocks:
        jobs = []
        for row, intervention in enumerate(block):
            latent = intervention.features[0]
            if latent not in fired:
                n = int(rng.binomial(len(genes), min(rate, 1.0)))
                fired[latent] = genes[np.sort(rng.choice(len(genes), n, replace=False, shuffle=False))]
            positions = genes if intervention.action == "activate" else fired[latent]
            if len(positions):
                jobs.append(Job(row, 0, Edit(positions, torch.empty(0, device="meta"))))
        yield jobs


def work_of(setup: Setup, clean: CleanBatch, jobs: Sequence[Job]) -> float:
    """Multiply-adds of some jobs in one batch, its clean side included; without blocks, positions x layers."""
    if not isinstance(setup.model, BlockStack):
        n_layers = max(setup.targets[clean.layer]) - clean.layer
        return clean.h.shape[1] * (len(clean.h) * (clean.layer + 1) + (len(jobs) + 1) * n_layers)
    edits = 0 if not jobs else (exact_madds if setup.engine == "exact" else local_madds)(setup, clean, jobs)
    return clean_madds(setup, clean) + edits


def clock() -> float:
    """Seconds; of one thread without an accelerator its processor time, which a busy machine does not stretch."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    return time.process_time() if alone else time.perf_counter()


def calibrate(setup: Setup, n: int = 8) -> Pace:
    """How fast this device traces by the setup's engine.

    `n` ablations (16 times as many by the local engine) of the first source layer in one batch of cells of median
    length, through its next three target layers, as a unit of a trace and to its tables.
    """
    layer = min(setup.sources)
    sae, targets = setup.saes[layer], list(setup.targets[layer])[:_CALIBRATION_LAYERS]
    cells = _median_cells(setup)
    clean = clean_batch(setup.model, sae, setup.cells.batch(cells), layer)
    most = n * (1 if setup.engine == "exact" else 16)
    live = tuple(islice((i for i in setup.todo[layer] if make_jobs(clean, sae, [i])), most))
    near = replace(setup, targets={layer: targets}, todo={layer: live}, groupings=())
    near = near.with_settings(
        sources_per_block=max(1, len(live)), cells_per_block=len(cells), groups=(), units=None,
    )  # fmt: skip
    unit = Unit(layer, 0, 0, live, cells)
    seconds, responding = np.inf, 0
    for _ in range(2):  # the first round also warms up
        started = clock()
        part = run_unit(near, unit)
        responding = sum(int(moments.n_nonzero.sum()) for moments in part.moments.values())
        seconds = min(seconds, clock() - started)
    n_latents = sum(setup.saes[t].n_latents for t in targets)
    return Pace(
        work=seconds / work_of(near, clean, make_jobs(clean, sae, live)),
        test=min(_tables(near, unit, part) for _ in range(2)) / (len(live) * n_latents) if live else 0.0,
        density=responding / max(1, part.n_ablated * n_latents) if setup.keeps_responses else 0.0,
    )


def _median_cells(setup: Setup) -> np.ndarray:
    """As many cells as one batch of the trace holds, of about median length; ascending."""
    lengths = setup.cells.lengths
    order = np.argsort(lengths, kind="stable")
    n = min(setup.settings.cells_at_once(int(np.median(lengths))), setup.settings.cells_per_block, len(order))
    first = min(max(0, len(order) // 2 - n // 2), len(order) - n)
    return np.sort(order[first : first + n])


def _tables(setup: Setup, unit: Unit, part: Part) -> float:
    """Seconds from the one part of a trace to its tables."""
    with tempfile.TemporaryDirectory(prefix="scircuit_plan_") as folder:
        part.write(Path(folder) / unit.name)
        started = clock()
        assembly = Assembly(replace(setup, cells=setup.cells.subset(unit.cells)), Path(folder))
        assembly.add(unit)
        assembly.tables().write(Path(folder))
        return clock() - started
