"""Condition A of the published study, and an exhaustive trace, on one CUDA device; does nothing without one.

    python benchmarks/gpu.py

Geneformer V2-316M size with random weights, cells of 2,048 positions, float32 without TF32 (what `exact` means).
Condition A: 30 latents of layers 0, 5, 11 and 15 each, 200 cells, 37 layer pairs, exact. Exhaustive: every latent of
every source layer, 20 cells, local without context rows. Both are whole `trace` calls, tables included. The ceilings
are measured on the same device: a large float32 product, and a copy within its memory. What a trace achieves is its
counted multiply-adds over its seconds; what it moves is not counted, so the bandwidth stands for reference.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from _common import Row, write_rows
from _models import as_store, centred_saes, random_cells, v2_316m

from scircuit.cells.tokens import TokenStore
from scircuit.models.stack import BlockStack
from scircuit.sae.topk import TopKSAE
from scircuit.tracing.plan import plan_trace
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace

LAYERS = (0, 5, 11, 15)


def best_seconds(work: Callable[[], object], n: int = 5) -> float:
    """Fastest of `n` runs on the device."""
    times = []
    for _ in range(n + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def ceilings() -> tuple[float, float]:
    """Multiply-adds per second of a float32 product, bytes per second of a copy (read and written)."""
    n = 8192
    a, b = (torch.randn(n, n, device="cuda") for _ in range(2))
    x = torch.empty(1 << 28, device="cuda")
    y = torch.empty_like(x)
    return n**3 / best_seconds(lambda: a @ b), 2 * 4 * x.numel() / best_seconds(lambda: y.copy_(x))


def traced(
    name: str,
    model: BlockStack,
    saes: dict[int, TopKSAE],
    cells: TokenStore,
    sources: dict[int, Sequence[int]],
    settings: TraceSettings,
    ceiling: float,
) -> list[Row]:
    """Seconds of one trace, and its share of the ceiling."""
    planned = plan_trace(Setup.of(model, saes, cells, sources, settings))
    with tempfile.TemporaryDirectory() as folder:
        torch.cuda.synchronize()
        started = time.perf_counter()
        trace(model, saes, cells, sources, Path(folder) / "t", settings=settings)
        seconds = time.perf_counter() - started
    share = float(planned.table["madds"].sum()) / seconds / ceiling
    gb = torch.cuda.max_memory_allocated() / 2**30
    return [
        Row(f"{name}_seconds_gpu", seconds, "s"),
        Row(f"{name}_matmul_share_gpu", share, "of the measured float32 product"),
        Row(f"{name}_peak_gb_gpu", gb, "GiB on the device"),
    ]


def main() -> None:
    """Both traces, where there is a device."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured, no row written")
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    model = v2_316m(device="cuda")
    batch = random_cells(200, 2048, 20275)
    saes = centred_saes(model, batch.take(np.arange(1)), 32)
    rng = np.random.default_rng(0)
    chosen = {layer: sorted(rng.choice(saes[layer].n_latents, 30, replace=False).tolist()) for layer in LAYERS}
    every = {layer: range(saes[layer].n_latents) for layer in range(model.n_layers - 1)}
    matmul, copy = ceilings()
    rows = [
        Row("matmul_ceiling_gpu", 2e-12 * matmul, "TFLOP/s, float32"),
        Row("copy_ceiling_gpu", 1e-9 * copy, "GB/s"),
        *traced(
            "condition_a", model, saes, as_store(batch), chosen,
            TraceSettings(engine="exact", n_random=0, memory="40GB"), matmul,
        ),
        *traced(
            "exhaustive", model, saes, as_store(batch.take(np.arange(20))), every,
            TraceSettings(engine="local", context_rows=0.0, n_random=0, confirm="none", accept_approximation=True,
                          memory="40GB"), matmul,
        ),
    ]  # fmt: skip
    write_rows("gpu", rows, device=torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
