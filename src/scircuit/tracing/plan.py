"""What a trace will take before it runs: forwards, multiply-adds, memory, disk, and time by a short calibration."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from scircuit._wording import amount, duration
from scircuit.cells.tokens import TokenStore
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.models.stream import residuals
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.draws import decoys_of, with_decoys
from scircuit.tracing.engines.clean import CleanBatch, clean_batch, make_jobs
from scircuit.tracing.engines.costs import clean_madds, exact_madds, local_madds
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.memory import MemoryPlan, fit, plan_memory
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import block_size, check_targets, choose_engine
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


def plan_trace(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    sources: Mapping[int, Sequence[int]],
    *,
    settings: TraceSettings | None = None,
    extra: Mapping[int, Sequence[Intervention]] | None = None,
    max_cells: int = 256,
    n_calibration: int = 8,
) -> Plan:
    """Plan `trace` with the same arguments.

    Firings are counted by one clean pass over at most `max_cells` cells (seeded), the cost of an ablation by
    formula on three of them, and the speed of this device by running `n_calibration` ablations of the first source
    layer through its next two target layers.

    Raises
    ------
    ScircuitError
        As `trace`, and when the memory budget is too small.
    """
    settings = settings or TraceSettings()
    targets = check_targets(model, saes, sources, settings)
    engine = choose_engine(model, saes, sources, settings)
    length = int(cells.lengths.max())
    settings = fit(model, saes, settings, engine=engine, length=length, sources=sources, targets=targets)
    decoys = decoys_of(model, saes, cells, sources, settings)
    todo = {
        layer: [*with_decoys(features, decoys[layer]), *(extra or {}).get(layer, ())]
        for layer, features in sorted(sources.items())
    }
    at_once = block_size(cells, settings)
    rng = np.random.default_rng([settings.seed, 5])
    counted = np.sort(rng.choice(len(cells), min(max_cells, len(cells)), replace=False))
    fired = _count_ablations(model, saes, cells, counted, todo)
    scale = len(cells) / len(counted)
    sample = counted[np.argsort(cells.lengths[counted], kind="stable")[[0, len(counted) // 2, -1]]].tolist()
    rows, disk = [], 0
    pace, density = _calibrate(model, saes, cells, sample[1], todo, targets, settings, engine, n_calibration)
    for layer, planned in todo.items():
        blocks = [planned[first : first + at_once] for first in range(0, len(planned), at_once)]
        n_ablated = round(fired[layer] * scale)
        total = len(cells) * float(
            np.mean([_work(model, saes, cells, c, layer, blocks, targets[layer], settings, engine) for c in sample])
        )
        latents = sum(saes[t].n_latents for t in targets[layer])
        n_parts = -(-len(cells) // settings.cells_per_block)
        disk += n_parts * len(planned) * latents * _MOMENT_BYTES + int(n_ablated * latents * density * _EFFECT_BYTES)
        rows.append(
            {
                "layer": layer,
                "n_sources": len(sources[layer]),
                "n_targets": len(targets[layer]),
                "n_clean": len(cells) * len(blocks),
                "n_ablated": n_ablated,
                "madds": total if isinstance(model, BlockStack) else np.nan,
                "seconds": total * pace,
            }
        )
    memory = plan_memory(
        model, saes, settings, engine=engine, length=length, n_rows=max(map(len, todo.values())),
        n_targets=max(map(len, targets.values())),
    )  # fmt: skip
    return Plan(engine, str(model.device), pd.DataFrame(rows), len(cells), len(counted), memory, disk, settings)


def _count_ablations(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    counted: np.ndarray,
    todo: Mapping[int, Sequence[Intervention]],
) -> dict[int, int]:
    """(cell, intervention) pairs in which something is changed, per source layer; one pass for all layers."""
    found = dict.fromkeys(todo, 0)
    for batch in cells.batches(1, cells=counted):
        states = residuals(model, batch, list(todo))
        gene = torch.from_numpy(batch.is_gene[0])
        for layer, planned in todo.items():
            latents = saes[layer].encode(states[layer][0, gene.to(states[layer].device)])
            live = set(latents.indices[latents.values > 0].unique().tolist())
            found[layer] += sum(not live.isdisjoint(i.features) for i in planned)
    return found


def _work(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    cell: int,
    layer: int,
    blocks: Sequence[Sequence[Intervention]],
    targets: Sequence[int],
    settings: TraceSettings,
    engine: str,
) -> float:
    """Work of one cell: multiply-adds, or (positions x layers) of a model that shows no blocks."""
    clean = clean_batch(model, saes[layer], cells.batch(np.array([cell])), layer)
    return sum(work_of(model, saes, clean, block, targets, settings, engine) for block in blocks)


def work_of(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    clean: CleanBatch,
    planned: Sequence[Intervention],
    targets: Sequence[int],
    settings: TraceSettings,
    engine: str,
) -> float:
    """Work of one block of interventions in one batch, its clean side included."""
    jobs = make_jobs(clean, saes[clean.layer], planned)
    if not isinstance(model, BlockStack):
        n_layers = max(targets) - clean.layer
        return clean.h.shape[1] * (len(clean.h) * (clean.layer + 1) + (len(jobs) + 1) * n_layers)
    own = clean_madds(model, saes, clean)
    if not jobs:
        return own
    if engine == "exact":
        return own + exact_madds(model, saes, clean, jobs, targets, tokens=settings.tokens)
    context = settings.context_rows or 0.0
    return own + local_madds(model, saes, clean, jobs, targets, context_rows=context, score_bytes=settings.score_bytes)


def _calibrate(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    cell: int,
    todo: Mapping[int, Sequence[Intervention]],
    targets: Mapping[int, Sequence[int]],
    settings: TraceSettings,
    engine: str,
    n: int,
) -> tuple[float, float]:
    """Seconds per unit of work on this device, and the share of latents that respond to an ablation."""
    layer = next(iter(todo))
    near = list(targets[layer])[:_CALIBRATION_LAYERS]
    batch = cells.batch(np.array([cell]))
    clean = clean_batch(model, saes[layer], batch, layer)
    live = [i for i in todo[layer] if make_jobs(clean, saes[layer], [i])][: n * (1 if engine == "exact" else 16)]
    context = None if engine == "exact" else settings.context_rows or 0.0
    best, responding, asked = np.inf, 0, 0
    for _ in range(2):  # the first round also warms up
        started = time.perf_counter()
        clean = clean_batch(model, saes[layer], batch, layer)
        jobs = make_jobs(clean, saes[layer], live)
        for r in respond(
            model, saes, clean, jobs, near, context_rows=context, tokens=settings.tokens,
            score_bytes=settings.score_bytes,
        ):  # fmt: skip
            responding += int((r.delta != 0).sum())
            asked += r.delta.numel()
        best = min(best, time.perf_counter() - started)
    density = responding / asked if asked and engine == "exact" else 0.0
    return best / work_of(model, saes, clean, live, near, settings, engine), density
