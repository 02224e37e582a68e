"""The position-local engine: its cost beside the exact one at full width, and its agreement on real cells.

    python benchmarks/local.py             # everything; some seven minutes on two idle cores
    python benchmarks/local.py v2_316m     # only this part: v2_316m (4 min), fidelity (2 min), rows (30 s)

`v2_316m`: Geneformer V2-316M with random weights, one cell of 2,048 positions, dictionaries of 4,608 latents with
k = 32, sources at layer 0, all 17 later layers read. Multiply-adds are counted for every live latent of the layer;
time is measured for one of them, which is the clean side of the cell, and for a random eighth; a latent costs what each
of the eighth adds, and its share of the clean side. Seven of those by the exact engine, whose default batch that is.

`fidelity`: both packaged models, dictionaries trained in the run, cells of scanpy's pbmc68k_reduced that no stage
learnt from; d of every test that half of the cells respond to, local against exact, at the least context that meets
the floors of a run (r and sign 0.995 at every distance).
"""

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _common import Row, write_rows
from _models import as_store, centred_saes, live_latents, random_cells, trained, v2_316m

from scircuit.cells.batch import TokenBatch
from scircuit.cells.tokens import TokenStore
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.costs import clean_madds, exact_madds, forward_madds, local_madds
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.exact import suffix_responses
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.engines.local import local_responses
from scircuit.tracing.fidelity import check_sample, compare, sample_moments
from scircuit.tracing.settings import CONTEXT_LADDER, TraceSettings
from scircuit.tracing.setup import Setup

PARTS = ("v2_316m", "fidelity", "rows")


def cost(model: BlockStack, batch: TokenBatch, k: int, share: int = 8, n_exact: int = 7) -> list[Row]:
    """Multiply-adds of all live latents, seconds per latent of a sample."""
    saes = centred_saes(model, batch, k)
    targets = list(range(1, model.n_layers))
    clean = clean_batch(model, saes[0], batch, 0)
    live = live_latents(clean)
    jobs = make_jobs(clean, saes[0], [Intervention((f,)) for f in live])
    setup = Setup(model, saes, as_store(batch), targets={0: targets})
    whole = clean_madds(setup, clean) + local_madds(setup, clean, jobs)
    forwards = whole / forward_madds(model, batch.tokens.shape[1])
    ratio = exact_madds(setup, clean, jobs) / local_madds(setup, clean, jobs)
    print(f"  {len(live):,} live latents, {sum(len(j.edit.positions) for j in jobs):,} rows, k = {k}", flush=True)

    some = [jobs[i] for i in np.random.default_rng(0).permutation(len(jobs))[: max(n_exact, len(jobs) // share)]]
    spent = []
    for n in (1, len(some)):
        started = time.perf_counter()
        n_read = sum(len(r.job) for r in local_responses(model, saes, clean, some[:n], targets))
        spent.append(time.perf_counter() - started)
        assert n_read == n * len(targets)
    local = (spent[1] - spent[0]) / (len(some) - 1) + spent[0] / len(jobs)
    print(f"  local: {1000 * local:.1f} ms per latent, clean side {spent[0]:.1f} s per cell", flush=True)
    started = time.perf_counter()
    for _ in suffix_responses(model, saes, clean, some[:n_exact], targets):
        pass
    exact = (time.perf_counter() - started) / n_exact
    print(f"  exact: {1000 * exact:.0f} ms per latent", flush=True)
    return [
        Row("local_forward_equivalents", forwards, f"forwards per cell, {len(live):,} latents, k = {k}, counted"),
        Row("local_madd_ratio", ratio, "x, counted"),
        Row("local_ms_per_latent_v2_316m", 1000 * local, "ms, 17 target layers"),
        Row("local_speedup_v2_316m", exact / local, "x per latent"),
    ]


def agreement(folder: Path, n_sources: int = 12, n_cells: int = 40) -> list[Row]:
    """Lowest agreement over models and distances: without context rows, and with those that a run would choose."""
    settings = TraceSettings(check_sources=n_sources, check_cells=n_cells)
    plain, chosen, most = [], [], 0.0
    for name in ("geneformer-mini", "scgpt-mini"):
        model, saes, store = trained(name, folder)
        live = live_sources(model, saes, store)
        sample = check_sample(Setup.of(model, saes, store, live, settings))
        exact = sample_moments(sample.by("exact"))
        for context in CONTEXT_LADDER:
            found = sample_moments(sample.by("local", context))
            table = compare(exact, found, settings)
            print(f"{name}, {context:g} context rows\n{table.to_string(index=False)}", flush=True)
            if context == 0:
                plain.append(table)
            if table["r"].min() >= settings.min_r and table["sign"].min() >= settings.min_sign:
                break
        chosen.append(table)
        most = max(most, context)
    none, run = pd.concat(plain), pd.concat(chosen)
    how = "over distances and both packaged models, context rows as the check of a run chooses them"
    return [
        Row("local_r_min", run["r"].min(), f"r of d, {how}"),
        Row("local_sign_min", run["sign"].min(), f"share of equal signs, {how}"),
        Row("local_precision_min", run["precision"].min(), f"of edges, {how}"),
        Row("local_recall_min", run["recall"].min(), f"of edges, {how}"),
        Row("local_context_rows", most, "per firing position, the larger of both models"),
        Row("local_r_min_context_0", none["r"].min(), "r of d, no context rows"),
        Row("local_sign_min_context_0", none["sign"].min(), "share of equal signs, no context rows"),
    ]


def live_sources(
    model: FoundationModel, saes: Mapping[int, SparseAutoencoder], store: TokenStore
) -> dict[int, list[int]]:
    """Latents of every layer but the last that fire in any of 16 cells."""
    live = {}
    for layer in sorted(saes)[:-1]:
        clean = clean_batch(model, saes[layer], store.batch(np.arange(min(len(store), 16))), layer)
        live[layer] = torch.cat([x.indices[x.values > 0] for x in clean.latents]).unique().tolist()
    return live


def growth(model: BlockStack, batch: TokenBatch, few: int = 256, many: int = 1024) -> list[Row]:
    """Seconds per propagated row when there are four times as many, the clean side of the cell taken off."""
    saes = centred_saes(model, batch, 32)
    clean = clean_batch(model, saes[0], batch, 0)
    jobs = make_jobs(clean, saes[0], [Intervention((f,)) for f in live_latents(clean)[:many]])
    seconds, rows = [], []
    for n in (1, 1, few, many):  # the first also warms up; one job is the clean side
        started = time.perf_counter()
        for _ in local_responses(model, saes, clean, jobs[:n], [1]):
            pass
        seconds.append(time.perf_counter() - started)
        rows.append(sum(len(job.edit.positions) for job in jobs[:n]))
    each = [(seconds[i] - seconds[1]) / (rows[i] - rows[1]) for i in (2, 3)]
    return [Row("local_seconds_per_row_growth", each[1] / each[0], f"x from {rows[2]:,} to {rows[3]:,} rows")]


def main(parts: list[str]) -> None:
    """Run the parts named, or all."""
    asked = parts or PARTS
    rows: list[Row] = []
    if "v2_316m" in asked:
        rows += cost(v2_316m(), random_cells(1, 2048, 20275), k=32)
    if "fidelity" in asked:
        with tempfile.TemporaryDirectory() as folder:
            rows += agreement(Path(folder))
    if "rows" in asked:
        rows += growth(v2_316m(n_layers=2), random_cells(1, 2048, 20275))
    write_rows("local", rows)


if __name__ == "__main__":
    main(sys.argv[1:])
