"""Chosen interventions read anywhere: the table of what a handful of latents does, beyond the published read-out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from scircuit._progress import progress
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.signflip import screen_p
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.exact import accumulator
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.moments import Moments
from scircuit.tracing.probes.readouts import readout
from scircuit.tracing.setup import Setup


def probe(
    setup: Setup,
    layer: int,
    interventions: Sequence[Intervention],
    *,
    targets: Sequence[int] = (),
    where: str = "active",
    what: str = "activation",
) -> pd.DataFrame:
    """Change of everything that is read, over cells, by the exact engine; `targets`, `where`, `what` as for `readout`.

    Returns one row per intervention and value read that changed in any cell: `source_layer, source` (latents joined by
    +), `kind, value, draw, where, what, target_layer, target` (latent, vocabulary entry or residual dimension),
    `n_cells, n_nonzero, n_pos, mean_delta, sd_delta, cohens_d, clean_mean, p_value` (t form of the sign-flip test over
    cells), `q_value` (BH over the rows). Without `targets`, every later layer with a dictionary is read.
    """
    model, saes, cells = setup.model, setup.saes, setup.cells
    if what in ("activation", "pre_activation") and not targets:
        targets = [t for t in sorted(saes) if t > layer]
    device, _ = accumulator(model.device)
    sums: dict[int, Moments] = {}
    for batch in progress(cells.batches(1), desc=f"probe (layer {layer})", unit="cell"):
        clean = clean_batch(model, saes[layer], batch, layer)
        jobs = make_jobs(clean, saes[layer], interventions)
        row_of = np.array([job.row for job in jobs], dtype=np.int64)
        if not jobs:
            continue
        for r in readout(setup, clean, jobs, targets, where=where, what=what):
            there = ~torch.isnan(r.clean[:, 0]).cpu()  # a cell may hold no other position to read
            into = sums.setdefault(r.layer, Moments.zeros(len(interventions), r.delta.shape[1], device))
            into.add(row_of[r.job][there.numpy()], r.delta[there.to(r.delta.device)], r.clean[there.to(r.clean.device)])
    if not sums:
        raise ScircuitError(f"None of the latents fires in these {len(cells)} cells; choose others, or more cells.")
    table = pd.concat([_rows(layer, t, interventions, m) for t, m in sorted(sums.items())], ignore_index=True)
    table.insert(5, "where", where)
    table.insert(6, "what", what)
    return table.assign(q_value=benjamini_hochberg(table["p_value"].to_numpy()))


def _rows(layer: int, target: int, interventions: Sequence[Intervention], moments: Moments) -> pd.DataFrame:
    m = moments.arrays()
    row, value = np.nonzero(m["n_nonzero"])
    n = m["n_cells"][row].astype(np.float64)
    total, square = m["total"][row, value], m["total_sq"][row, value]
    mean = total / n
    sd = np.sqrt(np.maximum(square - total * mean, 0.0) / np.maximum(n - 1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        d = mean / sd
    return pd.DataFrame(
        {
            "source_layer": np.int16(layer),
            "source": np.array(["+".join(map(str, i.features)) for i in interventions], dtype=object)[row],
            "kind": np.array([i.kind for i in interventions], dtype=object)[row],
            "value": np.array([_value(i) for i in interventions])[row],
            "draw": np.array([i.draw for i in interventions], dtype=np.int32)[row],
            "target_layer": np.int16(target),
            "target": value.astype(np.int32),
            "n_cells": n.astype(np.int32),
            "n_nonzero": m["n_nonzero"][row, value],
            "n_pos": m["n_pos"][row, value],
            "mean_delta": mean,
            "sd_delta": sd,
            "cohens_d": d,
            "clean_mean": m["clean"][row, value] / n,
            "p_value": screen_p(m["n_nonzero"][row, value], total, square),
        }
    )


def _value(intervention: Intervention) -> float:
    """The number of an intervention, NaN where it has none or one for each of several latents."""
    if intervention.action not in ("mean", "optimal", "set", "scale", "activate"):
        return float("nan")
    value = intervention.value
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else float("nan")
    return value
