"""The position-local engine: its cost beside the exact one at full width, and its agreement on real cells.

    python benchmarks/local.py             # everything; some seven minutes on two idle cores
    python benchmarks/local.py v2_316m     # only this part: v2_316m (4 min), fidelity (2 min), rows (30 s)

`v2_316m`: Geneformer V2-316M with random weights, one cell of 2,048 positions, dictionaries of 4,608 latents with
k = 32, sources at layer 0, all 17 later layers read. Multiply-adds are counted for every live latent of the layer;
time is measured for a random eighth of them, which makes each a little dearer (the clean side is shared by fewer),
and for seven of those by the exact engine, whose default batch that is.

`fidelity`: both packaged models, dictionaries trained in the run, cells of scanpy's pbmc68k_reduced that no stage
learnt from; d of every test that half of the cells respond to, local (no context rows) against exact.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _common import Row, write_rows
from _models import centred_saes, live_latents, random_cells, trained, v2_316m

from scircuit.cells.batch import TokenBatch
from scircuit.models.stack import BlockStack
from scircuit.tracing.clean import clean_batch, make_jobs
from scircuit.tracing.costs import clean_madds, exact_madds, forward_madds, local_madds
from scircuit.tracing.fidelity import check_sample, compare, sample_moments
from scircuit.tracing.interventions import Intervention
from scircuit.tracing.local import local_responses
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.suffix import suffix_responses

PARTS = ("v2_316m", "fidelity", "rows")


def cost(model: BlockStack, batch: TokenBatch, k: int, share: int = 8, n_exact: int = 7) -> list[Row]:
    """Multiply-adds of all live latents, seconds per latent of a sample."""
    saes = centred_saes(model, batch, k)
    targets = list(range(1, model.n_layers))
    clean = clean_batch(model, saes[0], batch, 0)
    live = live_latents(clean)
    jobs = make_jobs(clean, saes[0], [Intervention((f,)) for f in live])
    whole = clean_madds(model, saes, clean) + local_madds(model, saes, clean, jobs, targets)
    forwards = whole / forward_madds(model, batch.tokens.shape[1])
    ratio = exact_madds(model, saes, clean, jobs, targets) / local_madds(model, saes, clean, jobs, targets)
    print(f"  {len(live):,} live latents, {sum(len(j.edit.positions) for j in jobs):,} rows, k = {k}", flush=True)

    some = [jobs[i] for i in np.random.default_rng(0).permutation(len(jobs))[: max(n_exact, len(jobs) // share)]]
    started = time.perf_counter()
    n_read = sum(len(r.job) for r in local_responses(model, saes, clean, some, targets))
    local = (time.perf_counter() - started) / len(some)
    assert n_read == len(some) * len(targets)
    print(f"  local: {1000 * local:.1f} ms per latent", flush=True)
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


def agreement(folder: Path, n_sources: int = 24, n_cells: int = 60) -> list[Row]:
    """Lowest agreement over models and distances, without context rows and with as many as there are firings."""
    settings = TraceSettings(check_sources=n_sources, check_cells=n_cells)
    lowest: dict[float, pd.DataFrame] = {0.0: pd.DataFrame(), 1.0: pd.DataFrame()}
    for name in ("geneformer-mini", "scgpt-mini"):
        model, saes, store = trained(name, folder)
        layers = sorted(saes)[:-1]
        live = {}
        for layer in layers:
            batch = store.batch(np.arange(min(len(store), 16)))
            clean = clean_batch(model, saes[layer], batch, layer)
            fired = torch.cat([x.indices[x.values > 0] for x in clean.latents])
            live[layer] = fired.unique().tolist()
        targets = {layer: [t for t in saes if t > layer] for layer in layers}
        cells, sample = check_sample(store, live, settings)
        exact = sample_moments(model, saes, cells, sample, targets, settings, None)
        for context in lowest:
            found = sample_moments(model, saes, cells, sample, targets, settings, context)
            table = compare(exact, found, settings).assign(model=name)
            print(f"{name}, {context:g} context rows\n{table.to_string(index=False)}", flush=True)
            lowest[context] = pd.concat([lowest[context], table])
    rows = []
    for context, suffix in ((0.0, ""), (1.0, "_context_1")):
        table = lowest[context]
        rows += [
            Row(f"local_{measure}_min{suffix}", table[measure].min(), f"over distances, {what}")
            for measure, what in (("r", "d local against exact"), ("sign", "share of equal signs"))
        ]
    far = lowest[0.0]
    return [
        *rows,
        Row("local_precision_min", far["precision"].min(), "of edges, over distances"),
        Row("local_recall_min", far["recall"].min(), "of edges, over distances"),
    ]


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
