"""Time per ablation of the readable oracle and of the exact engine, at mini and at full size, and the demo's cost.

    python benchmarks/trace.py            # everything; about ten minutes on two idle cores
    python benchmarks/trace.py mini demo  # only these parts

The oracle is the published procedure (clean pass once per cell, a full forward per ablation, every position of
every later layer encoded on both sides); `suffix` is `scircuit.tracing.suffix`. Both in one run, so that the
ratio does not depend on what else the machine does. Full size has random weights: time does not depend on them.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _common import Row, write_rows

from scircuit.cells.batch import Role, TokenBatch
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.models.base import FoundationModel
from scircuit.models.geneformer import Geneformer
from scircuit.models.load import load_model
from scircuit.sae.base import SaeConfig, SparseAutoencoder
from scircuit.sae.topk import TopKSAE
from scircuit.tracing.clean import clean_batch, make_jobs
from scircuit.tracing.interventions import Intervention
from scircuit.tracing.naive import forward, naive_response
from scircuit.tracing.suffix import suffix_responses

V2_316M = {
    "vocab_size": 20275, "hidden_size": 1152, "num_hidden_layers": 18, "num_attention_heads": 18,
    "intermediate_size": 4608, "hidden_act": "relu", "layer_norm_eps": 1e-12, "max_position_embeddings": 4096,
    "type_vocab_size": 2,
}  # fmt: skip


def random_sae(layer: int, d: int, k: int) -> TopKSAE:
    """A dictionary of 4 d random unit directions."""
    g = torch.Generator().manual_seed(layer)
    n = 4 * d
    W = torch.nn.functional.normalize(torch.randn(n, d, generator=g), dim=1)
    return TopKSAE(SaeConfig("topk", d, n, k=k, layer=layer), W.T.clone(), torch.zeros(n), W, torch.zeros(d))


def full_size() -> tuple[FoundationModel, TokenBatch]:
    """Geneformer V2-316M with random weights, and one cell of 2,048 positions."""
    torch.manual_seed(0)
    vocabulary = load_model("geneformer-mini", device="cpu").tokenizer.vocabulary
    model = Geneformer(V2_316M, RankValueTokenizer(vocabulary, 4096), "v2-316m-random")
    model.seal("random")
    tokens = np.random.default_rng(0).permutation(np.arange(4, 20275))[None, :2048]
    role = np.full(tokens.shape, Role.GENE, dtype=np.int8)
    return model, TokenBatch(tokens, role, np.zeros(tokens.shape, dtype=np.int32), np.array([0]))


def mini() -> tuple[FoundationModel, TokenBatch]:
    """The packaged Geneformer and one cell of 512 positions."""
    model = load_model("geneformer-mini", device="cpu")
    tokens = np.random.default_rng(0).permutation(np.arange(4, 6000))[None, :512]
    role = np.full(tokens.shape, Role.GENE, dtype=np.int8)
    return model, TokenBatch(tokens, role, np.zeros(tokens.shape, dtype=np.int32), np.array([0]))


def compare(
    model: FoundationModel, batch: TokenBatch, layers: list[int], k: int, n_naive: int, n_suffix: int
) -> tuple[float, float]:
    """Seconds per ablation of both engines, summed over the source layers; the results must agree."""
    saes: dict[int, SparseAutoencoder] = {i: random_sae(i, model.d_model, k) for i in range(model.n_layers)}
    clean_states = forward(model, batch)
    seconds = np.zeros(2)
    for layer in layers:
        targets = list(range(layer + 1, model.n_layers))
        clean = clean_batch(model, saes[layer], batch, layer)
        live = clean.latents[0].indices[clean.latents[0].values > 0].unique().tolist()
        chosen = np.random.default_rng(layer).choice(live, n_suffix, replace=False)
        jobs = make_jobs(clean, saes[layer], [Intervention((int(f),)) for f in chosen])
        started = time.perf_counter()
        expected = [naive_response(model, saes, batch, layer, j.edit, targets, clean_states) for j in jobs[:n_naive]]
        naive_seconds = (time.perf_counter() - started) / n_naive
        started = time.perf_counter()
        found = {r.layer: r for r in suffix_responses(model, saes, clean, jobs, targets, tokens=64 * batch.tokens.size)}
        suffix_seconds = (time.perf_counter() - started) / len(jobs)
        for t in targets:
            worst = max(float((found[t].delta[i] - e[t]).abs().max()) for i, e in enumerate(expected))
            assert worst < 1e-2, f"engines disagree by {worst} at layer {t}"
        seconds += naive_seconds, suffix_seconds
        print(f"  layer {layer:2d}: naive {naive_seconds:8.3f} s, suffix {suffix_seconds:8.3f} s", flush=True)
    return float(seconds[0]), float(seconds[1])


def bench_engines(name: str, model: FoundationModel, batch: TokenBatch, **options: object) -> list[Row]:
    """Rows of one size."""
    print(name, flush=True)
    naive, suffix = compare(model, batch, **options)  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        Row(f"naive_seconds_per_ablation_{name}", naive, "s, summed over source layers"),
        Row(f"suffix_seconds_per_ablation_{name}", suffix, "s, summed over source layers"),
        Row(f"suffix_speedup_{name}", naive / suffix, "x"),
        Row(f"suffix_peak_gb_{name}", peak, "GiB of the process"),
    ]


def bench_demo() -> list[Row]:
    """The demonstration as a user runs it, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([str(Path(sys.executable).parent / "scircuit"), "demo", "--out", f"{folder}/demo"], check=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return [Row("demo_seconds", seconds, "s"), Row("demo_peak_gb", peak, "GiB")]


def main() -> None:
    """Run the parts named on the command line, or all."""
    parts = sys.argv[1:] or ["demo", "mini", "v2_316m"]
    rows: list[Row] = []
    if "demo" in parts:
        rows += bench_demo()
    if "mini" in parts:
        model, batch = mini()
        rows += bench_engines("mini", model, batch, layers=[0, 1, 2, 3, 4], k=16, n_naive=12, n_suffix=48)
    if "v2_316m" in parts:
        model, batch = full_size()
        rows += bench_engines("v2_316m", model, batch, layers=[0, 5, 11, 15], k=32, n_naive=1, n_suffix=5)
    write_rows("trace", rows)


if __name__ == "__main__":
    main()
