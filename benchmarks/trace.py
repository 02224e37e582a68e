"""The exact engine beside the readable oracle, the demonstration's cost, and how a trace grows with its cells.

    python benchmarks/trace.py                  # everything; some eight minutes on two idle cores
    python benchmarks/trace.py mini v2_316m     # only these parts: demo (90 s), mini (20 s), v2_316m (5 min),
                                                # cells (60 s)

The oracle (`tracing.naive`) is the published procedure: a clean pass once per cell, a full forward per ablation, every
position of every later layer encoded on both sides, attention written out ("eager"). What is left of the ratio when
the oracle is given our model's fused attention is measured as well (`..._fused`). All run in one process, one after
the other at each source layer, so that the ratio does not depend on what else the machine does; their results must
agree. Full size has random weights: time does not depend on them. The exact engine runs with its default batch of
16,384 positions.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _common import Row, write_rows
from _models import as_store, centred_saes, live_latents, random_cells, v2_316m
from torch import Tensor

from scircuit.cells.batch import TokenBatch
from scircuit.models.load import load_model
from scircuit.models.stack import BlockStack
from scircuit.tracing.engines import naive
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.exact import suffix_responses
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.engines.naive import forward, naive_response
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import trace

PARTS = ("demo", "mini", "v2_316m", "cells")


@contextmanager
def timed(seconds: dict[str, float], name: str, n: int = 1) -> Iterator[None]:
    """Add the seconds of the block, divided by `n`."""
    started = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + (time.perf_counter() - started) / n


def compare(model: BlockStack, batch: TokenBatch, layers: list[int], k: int, n_naive: int, n_exact: int) -> list[Row]:
    """Seconds per ablation of oracle and engine, summed over the source layers."""
    saes = centred_saes(model, batch, k)
    before = forward(model, batch)
    seconds: dict[str, float] = {}
    for layer in layers:
        targets = list(range(layer + 1, model.n_layers))
        clean = clean_batch(model, saes[layer], batch, layer)
        chosen = np.random.default_rng(layer).choice(live_latents(clean), n_exact, replace=False)
        jobs = make_jobs(clean, saes[layer], [Intervention((int(f),)) for f in chosen])
        now = dict(seconds)
        with timed(seconds, "naive", n_naive):
            expected = [naive_response(model, saes, batch, layer, j.edit, targets, before) for j in jobs[:n_naive]]
        with timed(seconds, "fused", n_naive), mock.patch.object(naive, "_layer", BlockStack.layer):
            for job in jobs[:n_naive]:
                naive_response(model, saes, batch, layer, job.edit, targets, before)
        with timed(seconds, "exact", len(jobs)):
            found: dict[int, list[Tensor]] = {}
            for r in suffix_responses(model, saes, clean, jobs, targets):
                found.setdefault(r.layer, []).append(r.delta)
        for t in targets:
            delta = torch.cat(found[t])
            worst = max(float((delta[i] - e[t]).abs().max()) for i, e in enumerate(expected))
            assert worst < 1e-2, f"engines disagree by {worst} at layer {t}"
        spent = ", ".join(f"{name} {seconds[name] - now.get(name, 0.0):.3f} s" for name in seconds)
        print(f"  layer {layer:2d}: {spent}", flush=True)
    name = "v2_316m" if model.d_model == 1152 else "mini"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    unit = "s, summed over source layers"
    return [
        Row(f"naive_seconds_per_ablation_{name}", seconds["naive"], unit),
        Row(f"exact_seconds_per_ablation_{name}", seconds["exact"], unit),
        Row(f"exact_speedup_{name}", seconds["naive"] / seconds["exact"], "x"),
        # The same number under the name of the engine's module, by which it is asked for as well.
        Row(f"suffix_speedup_{name}", seconds["naive"] / seconds["exact"], "x"),
        Row(f"exact_speedup_{name}_fused", seconds["fused"] / seconds["exact"], "x"),
        Row(f"exact_peak_gb_{name}", peak, "GiB of the process"),
    ]


def bench_demo() -> list[Row]:
    """The demonstration as a user runs it, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "scircuit.cli.app", "demo", "--out", f"{folder}/demo"], check=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return [Row("demo_seconds", seconds, "s"), Row("demo_peak_gb", peak, "GiB")]


def trace_cells(n_cells: int) -> None:
    """Trace 32 sources of the packaged Geneformer in `n_cells` cells; prints seconds and GiB at the peak."""
    model = load_model("geneformer-mini", device="cpu")
    store = as_store(random_cells(n_cells, 96, 6000))
    saes = centred_saes(model, store.batch(np.arange(8)), 16)
    clean = clean_batch(model, saes[2], store.batch(np.arange(1)), 2)
    sources = {2: live_latents(clean)[:32]}
    settings = TraceSettings(engine="exact", cells_per_block=25, n_random=1)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trace(model, saes, store, sources, Path(folder) / "t", settings=settings)
        seconds = time.perf_counter() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def bench_cells(few: int = 50, many: int = 400) -> list[Row]:
    """Time and memory of the same trace in eight times as many cells, each in a process of its own."""
    found = {}
    for n in (few, many):
        command = [sys.executable, __file__, "trace_cells", str(n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[n] = [float(x) for x in done.stdout.split()[-2:]]
    (seconds, memory), (more_seconds, more_memory) = found[few], found[many]
    return [
        Row("trace_seconds_per_cell_growth", more_seconds / seconds * few / many, f"x from {few} to {many} cells"),
        Row("trace_peak_gb_growth", more_memory / memory, f"x from {few} to {many} cells"),
        Row("trace_peak_gb", more_memory, f"GiB of the process, {many} cells"),
    ]


def main(parts: list[str]) -> None:
    """Run the parts named, or all."""
    rows: list[Row] = []
    asked: Any = parts or PARTS
    if "demo" in asked:
        rows += bench_demo()
    if "mini" in asked:
        model = load_model("geneformer-mini", device="cpu")
        assert isinstance(model, BlockStack)
        rows += compare(model, random_cells(1, 512, 6000), [0, 1, 2, 3, 4], k=16, n_naive=12, n_exact=31)
    if "v2_316m" in asked:
        rows += compare(v2_316m(), random_cells(1, 2048, 20275), [0, 5, 11, 15], k=32, n_naive=1, n_exact=7)
    if "cells" in asked:
        rows += bench_cells()
    write_rows("trace", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["trace_cells"]:
        trace_cells(int(sys.argv[2]))
    else:
        main(sys.argv[1:])
