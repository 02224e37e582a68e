"""What decoys add to an exhaustive trace: every latent of every source layer, with and without them.

    python benchmarks/decoys.py        # some four minutes on two cores

The packaged Geneformer with random dictionaries of 1,024 latents per layer, k = 20, by the local engine without context
rows; nothing is measured again exactly. Each trace in a process of its own, both twice in turn, the faster one counts.
Seconds are those of the processor and of one thread, so that the ratio does not depend on what else the machine does:
threads that wait for one another on shared cores spend up to seven times as many.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import Row, write_rows
from _models import as_store, centred_saes, random_cells

from scircuit.models.load import load_model
from scircuit.models.stack import BlockStack
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import trace

N_CELLS, LENGTH, EXPANSION, K = 16, 96, 8, 20


def exhaustive(n_random: int) -> None:
    """Trace every latent; prints processor seconds and GiB at the peak."""
    model = load_model("geneformer-mini", device="cpu")
    assert isinstance(model, BlockStack)
    store = as_store(random_cells(N_CELLS, LENGTH, 6000))
    saes = centred_saes(model, store.batch(np.arange(4)), K, EXPANSION)
    sources = {layer: list(range(saes[layer].n_latents)) for layer in range(model.n_layers - 1)}
    settings = TraceSettings(
        engine="local", context_rows=0.0, accept_approximation=True, confirm="none", check_sources=24,
        n_random=n_random,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        trace(model, saes, store, sources, Path(folder) / "t", settings=settings)
        seconds = time.process_time() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    """Both kinds of trace in turn."""
    found: dict[int, list[tuple[float, float]]] = {0: [], 8: []}
    for _ in range(2):
        for n_random, runs in found.items():
            command = [sys.executable, __file__, "exhaustive", str(n_random)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            seconds, memory = (float(x) for x in done.stdout.split()[-2:])
            runs.append((seconds, memory))
            print(f"  {n_random} decoys per source: {seconds:.1f} s, {memory:.2f} GiB", flush=True)
    without, with_decoys = (np.min(found[n], axis=0) for n in (0, 8))
    unit = "x, with decoys over without"
    write_rows(
        "decoys",
        [
            Row("decoy_seconds_ratio", with_decoys[0] / without[0], unit),
            Row("decoy_peak_gb_ratio", with_decoys[1] / without[1], unit),
            Row("decoy_trace_seconds", with_decoys[0], "s of processor time, with decoys"),
            Row("decoy_trace_peak_gb", with_decoys[1], "GiB of the process, with decoys"),
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["exhaustive"]:
        exhaustive(int(sys.argv[2]))
    else:
        main()
