"""Running one unit of a trace with the engine asked for."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from scircuit.tracing.engines.clean import CleanBatch, Job, clean_batch, make_jobs
from scircuit.tracing.engines.exact import Responses, accumulator, suffix_responses
from scircuit.tracing.engines.local import local_responses
from scircuit.tracing.moments import Moments
from scircuit.tracing.parts import CellEffects, Part, Unit
from scircuit.tracing.setup import Setup


def respond(setup: Setup, clean: CleanBatch, jobs: Sequence[Job]) -> Iterator[Responses]:
    """Responses of the targets of the batch's layer, by the engine of the setup."""
    model, saes, targets, s = setup.model, setup.saes, setup.targets[clean.layer], setup.settings
    context = setup.context_rows
    if context is None:
        return suffix_responses(model, saes, clean, jobs, targets, tokens=s.tokens)
    return local_responses(model, saes, clean, jobs, targets, context_rows=context, score_bytes=s.score_bytes)


def run_unit(setup: Setup, unit: Unit) -> Part:
    """One block of interventions in one block of cells.

    Per-cell responses are kept where the setup `keeps_responses`: of whole dictionaries they may fill the disk.
    """
    saes, cells, targets, groupings = setup.saes, setup.cells, setup.targets[unit.layer], setup.groupings
    device, _ = accumulator(setup.model.device)
    rows = len(unit.interventions)
    moments = {t: Moments.zeros(rows, saes[t].n_latents, device) for t in targets}
    groups = {t: [Moments.zeros(rows * len(g.labels), saes[t].n_latents, device) for g in groupings] for t in targets}
    seen: dict[int, list[CellEffects]] = {t: [] for t in targets}
    acted: list[np.ndarray] = [np.zeros((2, 0), dtype=np.int32)]
    pushes = np.zeros((rows, setup.model.d_model + 1))
    keeps_responses = setup.keeps_responses
    at_once = setup.settings.cells_at_once(int(cells.lengths[unit.cells].max()))
    for batch in cells.batches(at_once, cells=unit.cells):
        clean = clean_batch(setup.model, saes[unit.layer], batch, unit.layer, setup.settings.special_tokens)
        jobs = make_jobs(clean, saes[unit.layer], unit.interventions)
        row_of = np.array([job.row for job in jobs], dtype=np.int64)
        cell_of = np.array([batch.cell[job.cell] for job in jobs], dtype=np.int32)
        acted.append(np.stack([row_of.astype(np.int32), cell_of]))
        for job in jobs:
            pushes[job.row] += _push(job)
        for r in respond(setup, clean, jobs):
            moments[r.layer].add(row_of[r.job], r.delta, r.clean)
            for grouping, sums in zip(groupings, groups[r.layer], strict=True):
                of_group = row_of[r.job] * len(grouping.labels) + grouping.code[cell_of[r.job]]
                sums.add(of_group, r.delta, r.clean)
            if keeps_responses:
                seen[r.layer].append(_nonzero(r, row_of, cell_of))
    effects = {t: CellEffects.concatenate(parts) for t, parts in seen.items()}
    done = np.concatenate(acted, axis=1)
    return Part(moments, effects, groups, done, pushes, n_clean=len(unit.cells), n_ablated=done.shape[1])


def _push(job: Job) -> np.ndarray:
    """Mean row that a job adds and mean norm of its rows, float64 `[d_model + 1]`."""
    rows = job.edit.rows.double()
    return torch.cat([rows.mean(dim=0), rows.norm(dim=1).mean()[None]]).cpu().numpy()


def _nonzero(r: Responses, row_of: np.ndarray, cell_of: np.ndarray) -> CellEffects:
    job, latent = (x.cpu().numpy() for x in r.delta.nonzero(as_tuple=True))
    delta = r.delta[r.delta != 0].float().cpu().numpy()
    number = r.job[job]
    return CellEffects(row_of[number].astype(np.int32), latent.astype(np.int32), cell_of[number], delta)
