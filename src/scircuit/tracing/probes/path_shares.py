"""How an effect comes about: within the firing positions, through other genes, or by plain residual copy."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from scircuit._progress import progress
from scircuit.circuits.schema import ENDS
from scircuit.errors import ScircuitError
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.engines.clean import CleanBatch, Job, clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.moments import Moments
from scircuit.tracing.setup import Setup
from scircuit.tracing.tables import weight_effects
from scircuit.tracing.units import respond


@torch.inference_mode()
def path_shares(setup: Setup, edges: pd.DataFrame) -> pd.DataFrame:
    """Split the mean response of each edge by the paths it takes: the table `path_shares.parquet`.

    `local_delta` is measured by the local engine without context rows;
    `context_delta` = mean_delta - local_delta leaves the firing positions and comes back through other genes; shares
    are of mean_delta, NaN where it is 0. `weight_delta` = - mean activation of the source times `weight_effect`
    (encoder of the target . decoder of the source): what a residual copy of the source would do to the target's
    pre-activation, were nothing in between.
    """
    missing = [column for column in ENDS if column not in edges]
    if missing:
        raise ScircuitError(f"The edges lack {', '.join(missing)}; give the columns {', '.join(ENDS)}.")
    if edges.empty or not (edges["source_layer"] < edges["target_layer"]).all():
        raise ScircuitError("Every edge must lead to a later layer, and there must be one; check the table.")
    parts = [
        _of_layer(setup, layer, edges.loc[edges["source_layer"] == layer, ENDS])
        for layer in sorted(edges["source_layer"].unique().tolist())
    ]
    return pd.concat(parts, ignore_index=True)


def _of_layer(setup: Setup, layer: int, edges: pd.DataFrame) -> pd.DataFrame:
    features = sorted({int(f) for f in edges["source_feature"]})
    targets = sorted({int(t) for t in edges["target_layer"]})
    setup = replace(setup, targets={layer: targets})
    engines = {None: setup.by("exact"), 0.0: setup.by("local", 0.0)}
    saes, todo = setup.saes, tuple(Intervention((f,)) for f in features)
    device = torch.device("cpu")
    sums = {(context, t): Moments.zeros(len(todo), saes[t].n_latents, device) for context in engines for t in targets}
    activation = np.zeros(len(todo))
    for batch in progress(
        setup.cells.batches(1), total=len(setup.cells), desc=f"path shares (layer {layer})", unit="cell"
    ):
        clean = clean_batch(setup.model, saes[layer], batch, layer)
        jobs = make_jobs(clean, saes[layer], todo)
        row_of = np.array([job.row for job in jobs], dtype=np.int64)
        for context, by in engines.items():
            if jobs:
                for r in respond(by, clean, jobs):
                    sums[context, r.layer].add(row_of[r.job], r.delta, r.clean)
        for job in jobs:
            activation[job.row] += _mean_activation(clean, job, features[job.row])
    silent = (sums[None, targets[0]].n_cells == 0).numpy()
    if silent.any():
        raise ScircuitError(
            f"Latent {features[int(silent.argmax())]} of layer {layer} fires in none of these cells; leave it out."
        )
    return pd.concat([_table(saes, layer, t, edges, todo, sums, activation) for t in targets], ignore_index=True)


def _mean_activation(clean: CleanBatch, job: Job, feature: int) -> float:
    """Mean activation of a source over the positions at which it fires in a cell."""
    z = clean.latents[job.cell].column(feature).double()
    return float(z.sum()) / len(job.edit.positions)


def _table(
    saes: Mapping[int, SparseAutoencoder],
    layer: int,
    target: int,
    edges: pd.DataFrame,
    todo: tuple[Intervention, ...],
    sums: Mapping[tuple[float | None, int], Moments],
    activation: np.ndarray,
) -> pd.DataFrame:
    mine = edges[edges["target_layer"] == target].reset_index(drop=True)
    row = mine["source_feature"].map({i.features[0]: n for n, i in enumerate(todo)}).to_numpy(np.int64)
    latent = mine["target_feature"].to_numpy(np.int64)
    exact, local = sums[None, target].arrays(), sums[0.0, target].arrays()
    n = exact["n_cells"][row]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, stays = exact["total"][row, latent] / n, local["total"][row, latent] / n
        share = np.where(mean != 0, stays / mean, np.nan)
        z = activation[row] / n
    weight = weight_effects(todo, saes[layer], saes[target])[row, latent].astype(np.float64)
    return mine.assign(
        n_cells=n.astype(np.int32),
        mean_delta=mean,
        local_delta=stays,
        context_delta=mean - stays,
        local_share=share,
        context_share=1.0 - share,
        weight_effect=weight,
        weight_delta=-z * weight,
    )
