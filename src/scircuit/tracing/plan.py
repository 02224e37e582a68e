"""What a trace will take before it runs: forwards, multiply-adds, memory, disk, and time by a short calibration."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from scircuit._wording import amount, duration
from scircuit.models.stack import BlockStack
from scircuit.models.stream import residuals
from scircuit.tracing.engines.clean import CleanBatch, Job, clean_batch, make_jobs
from scircuit.tracing.engines.costs import clean_madds, exact_madds, local_madds
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.memory import MemoryPlan, fit, plan_memory
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.units import respond

_MOMENT_BYTES, _EFFECT_BYTES = 40, 16
_CALIBRATION_LAYERS = 2


@dataclass(frozen=True)
class Plan:
    """What a trace will take.

    Attributes
    ----------
    engine, device : str
        By which engine, and on what.
    table : DataFrame
        One row per source layer: `layer, n_sources, n_targets` (target layers), `n_clean` and `n_ablated` forwards
        (for the local engine: cells passed and ablations propagated), `madds` (multiply-adds of all products; NaN
        for models that show no blocks) and `seconds`.
    n_cells, n_counted : int
        Cells of the trace, and those on which firings were counted; forwards are exact where they are equal,
        scaled up otherwise.
    memory : MemoryPlan
        Bytes at the peak.
    disk : int
        Bytes of the parts before they are summed.
    settings : TraceSettings
        As fitted to the memory budget.
    """

    engine: str
    device: str
    table: pd.DataFrame
    n_cells: int
    n_counted: int
    memory: MemoryPlan
    disk: int
    settings: TraceSettings

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
        counted = (
            "counted in every cell" if self.n_counted == self.n_cells else f"scaled up from {self.n_counted} cells"
        )
        out += [
            f"{self.engine} engine on {self.device}, {self.n_cells:,} cells; ablations {counted}",
            f"peak memory {amount(self.memory.peak)}: weights {amount(self.memory.weights)}, sums "
            f"{amount(self.memory.moments)}, batch {amount(self.memory.batch)}",
            f"disk while it runs {amount(self.disk)}",
        ]
        if self.engine == "local":
            out.append(
                f"not in these numbers: the fidelity check ({self.settings.check_sources} sources per layer in "
                f"{min(self.settings.check_cells, self.n_cells)} cells, by both engines) and the exact confirmation of "
                "borderline edges, which depends on the result"
            )
            if self.settings.context_rows is None:
                out.append(
                    "counted without context rows; if the check asks for some, time grows with (1 + context_rows)"
                )
        return out


def plan_trace(setup: Setup, *, max_cells: int = 256, n_calibration: int = 8) -> Plan:
    """Plan the trace of a setup.

    Firings are counted by one clean pass over at most `max_cells` cells (seeded), the cost of an ablation by
    formula on three of them, and the speed of this device by running `n_calibration` ablations of the first source
    layer through its next two target layers.

    Raises
    ------
    ScircuitError
        When the memory budget is too small.
    """
    setup = fit(setup)
    cells, todo = setup.cells, dict(sorted(setup.todo.items()))
    first_cells = [unit for unit in setup.units() if unit.cell_block == 0]
    rng = np.random.default_rng([setup.settings.seed, 5])
    counted = np.sort(rng.choice(len(cells), min(max_cells, len(cells)), replace=False))
    fired = _count_ablations(setup, counted)
    scale = len(cells) / len(counted)
    sample = counted[np.argsort(cells.lengths[counted], kind="stable")[[0, len(counted) // 2, -1]]].tolist()
    rows, disk = [], 0
    pace, density = _calibrate(setup, sample[1], n_calibration)
    for layer, planned in todo.items():
        blocks = [unit.interventions for unit in first_cells if unit.layer == layer]
        n_ablated = round(fired[layer] * scale)
        total = len(cells) * float(np.mean([_work(setup, cell, layer, blocks) for cell in sample]))
        latents = sum(setup.saes[t].n_latents for t in setup.targets[layer])
        n_parts = -(-len(cells) // setup.settings.cells_per_block)
        disk += n_parts * len(planned) * latents * _MOMENT_BYTES + int(n_ablated * latents * density * _EFFECT_BYTES)
        rows.append(
            {
                "layer": layer,
                "n_sources": len(setup.sources[layer]),
                "n_targets": len(setup.targets[layer]),
                "n_clean": len(cells) * len(blocks),
                "n_ablated": n_ablated,
                "madds": total if isinstance(setup.model, BlockStack) else np.nan,
                "seconds": total * pace,
            }
        )
    table, device = pd.DataFrame(rows), str(setup.model.device)
    return Plan(setup.engine, device, table, len(cells), len(counted), plan_memory(setup), disk, setup.settings)


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


def _work(setup: Setup, cell: int, layer: int, blocks: Sequence[Sequence[Intervention]]) -> float:
    """Work of one cell: multiply-adds, or (positions x layers) of a model that shows no blocks."""
    clean = clean_batch(setup.model, setup.saes[layer], setup.cells.batch(np.array([cell])), layer)
    return sum(work_of(setup, clean, make_jobs(clean, setup.saes[layer], block)) for block in blocks)


def work_of(setup: Setup, clean: CleanBatch, jobs: Sequence[Job]) -> float:
    """Work of some jobs in one batch, its clean side included."""
    model, saes, targets, s = setup.model, setup.saes, setup.targets[clean.layer], setup.settings
    if not isinstance(model, BlockStack):
        n_layers = max(targets) - clean.layer
        return clean.h.shape[1] * (len(clean.h) * (clean.layer + 1) + (len(jobs) + 1) * n_layers)
    own, context = clean_madds(model, saes, clean), setup.context_rows
    if not jobs:
        return own
    if context is None:
        return own + exact_madds(model, saes, clean, jobs, targets, tokens=s.tokens)
    return own + local_madds(model, saes, clean, jobs, targets, context_rows=context, score_bytes=s.score_bytes)


def _calibrate(setup: Setup, cell: int, n: int) -> tuple[float, float]:
    """Seconds per unit of work on this device, and the share of latents that respond to an ablation."""
    layer = min(setup.sources)
    sae, near = setup.saes[layer], {layer: list(setup.targets[layer])[:_CALIBRATION_LAYERS]}
    setup = replace(setup, targets=near)
    batch = setup.cells.batch(np.array([cell]))
    clean = clean_batch(setup.model, sae, batch, layer)
    most = n * (1 if setup.engine == "exact" else 16)
    live = [i for i in setup.todo[layer] if make_jobs(clean, sae, [i])][:most]
    best, responding, asked = np.inf, 0, 0
    for _ in range(2):  # the first round also warms up
        started = time.perf_counter()
        clean = clean_batch(setup.model, sae, batch, layer)
        jobs = make_jobs(clean, sae, live)
        for r in respond(setup, clean, jobs):
            responding += int((r.delta != 0).sum())
            asked += r.delta.numel()
        best = min(best, time.perf_counter() - started)
    density = responding / asked if asked and setup.engine == "exact" else 0.0
    return best / work_of(setup, clean, jobs), density
