"""Every question but the bootstrap over cells, asked of 25 million generated edges in Parquet.

    python benchmarks/analysis.py [--edges N] [--out DIR]

18 layers of 4,608 latents, every latent but the last layer's a source, one random direction each, half of the
latents annotated with gene sets; correlations of every edge, co-activation of 20 million pairs, every edge among the
effects of the trace, and half of them in two groups of cells. Each question runs in a process of its own that reads
what it needs from disk, so its seconds and peak memory include the reading. Prints a table and writes
results/analysis.json, rows of {measure, value, unit, hardware, date}.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from _common import write_rows

from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import CONTROLS, EDGES, NODES, TERMS, TESTS

N_LAYERS, N_LATENTS = 18, 4608
QUESTIONS = (
    "sign_balance", "effect_sizes", "attenuation", "hubs", "selection", "coherence", "coexpression", "coactivation",
    "threshold_sweep", "group_stability",
)  # fmt: skip

ASK = """
import json, resource, sys, time
start = time.perf_counter()
from scircuit.analysis.registry import analyze
result = analyze(sys.argv[1], sys.argv[2])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps([seconds, time.process_time(), peak]))
"""


def nodes(rng: np.random.Generator) -> pd.DataFrame:
    """A node table with log-normal firing rates; half of the latents have gene sets."""
    layer, feature = np.divmod(np.arange(N_LAYERS * N_LATENTS), N_LATENTS)
    rate = np.exp(rng.normal(-5, 1, len(layer)))
    table = {
        "layer": layer,
        "feature": feature,
        "label": "",
        "frequency": rate,
        "mean_activation": np.exp(rng.normal(0, 0.5, len(layer))),
        "top_genes": [[] for _ in layer],
        "n_terms": np.where(rng.random(len(layer)) < 0.5, rng.integers(1, 12, len(layer)), 0),
        "n_firings": (rate * 4e6).astype(int) + 1,
        "is_source": layer < N_LAYERS - 1,
    }
    return pd.DataFrame(table).astype({c: t for c, t in NODES.items() if t != "object"})


def terms(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Gene sets of the annotated latents, drawn from 2,000 of very different popularity."""
    annotated = table.loc[table.index.repeat(table["n_terms"]), ["layer", "feature"]]
    number = np.minimum(rng.zipf(1.5, len(annotated)), 2000)
    drawn = annotated.assign(
        term=np.char.add("set ", number.astype(str)).astype(object),
        n_overlap=4, set_size=50, query_size=20, fold=5.0, p_value=1e-6, q_value=1e-4,
        information_content=np.log2(2001 / (2001 - number)) + 1.0,
    )  # fmt: skip
    return drawn.drop_duplicates(["layer", "feature", "term"]).reset_index(drop=True)[list(TERMS)]


def ends(table: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Random forward pairs, sources by firing rate and targets thinning out with depth."""
    rate = table["frequency"].to_numpy()[: (N_LAYERS - 1) * N_LATENTS]
    source = np.sort(rng.choice(len(rate), n, p=rate / rate.sum()))
    layer = source // N_LATENTS
    target = layer + 1 + np.minimum(rng.exponential(4, n).astype(int), N_LAYERS - 2 - layer)
    columns = [layer, source % N_LATENTS, target, rng.integers(0, N_LATENTS, n)]
    return pd.DataFrame(dict(zip(list(EDGES)[:4], columns, strict=True)))


def edges(table: pd.DataFrame, n: int, rng: np.random.Generator, schema: dict[str, str]) -> pd.DataFrame:
    """Edges with plausible moments, in the circuit's types."""
    frame = ends(table, n, rng).astype({c: schema[c] for c in list(EDGES)[:4]})
    sign = np.where(rng.random(n, dtype=np.float32) < 0.7, -1, 1).astype("float32")
    size = 0.5 + rng.exponential(0.5, n).astype("float32")
    for column in list(schema)[4:]:
        dtype = schema[column]
        if column == "cohens_d":
            frame[column] = sign * size
        elif column in ("mean_delta", "weight_effect"):
            frame[column] = sign * size * rng.random(n, dtype=np.float32) * (1 if column == "mean_delta" else -1)
        elif dtype.startswith("int"):
            frame[column] = np.zeros(n, dtype) if column == "draw" else np.full(n, 100, dtype)
        else:
            frame[column] = rng.random(n, dtype=np.float32).astype(dtype)
    return frame


def tests(table: pd.DataFrame) -> pd.DataFrame:
    """One row per source, target layer and kind."""
    source = table.loc[table["is_source"], ["layer", "feature"]]
    rows = [
        source[source["layer"] < layer].assign(target_layer=layer, kind=kind)
        for kind in ("latent", "random")
        for layer in range(1, N_LAYERS)
    ]
    frame = pd.concat(rows, ignore_index=True).rename(columns={"layer": "source_layer", "feature": "source_feature"})
    counts = {"draw": 0, "n_cells": 200, "n_targets": N_LATENTS, "n_tests": 2000, "n_retained": 100}
    return frame.assign(**counts).astype(TESTS)[list(TESTS)]


def write_tables(run: Path, circuit: Circuit, rng: np.random.Generator) -> None:
    """What lies beside the circuit: correlations, co-activation, effects and tests, groups of cells."""
    (run / "trace").mkdir()
    (run / "features").mkdir()
    own = circuit.edges[list(EDGES)[:4]]
    n = len(own)
    r = {name: rng.uniform(-1, 1, n).astype("float32") for name in ("gene_r", "latent_r")}
    own.assign(**r).to_parquet(run / "features" / "correlations.parquet", index=False)
    few = 2 * n // 5
    pairs = pd.concat([own.iloc[rng.choice(n, few, replace=False)], ends(circuit.nodes, few, rng).astype(own.dtypes)])
    pairs = pairs.drop_duplicates(ignore_index=True)
    pairs = pairs.assign(n_both=np.int32(120), pmi=rng.standard_normal(len(pairs)).astype("float32"))
    pairs.to_parquet(run / "features" / "coactivation_across.parquet", index=False)
    circuit.tests.to_parquet(run / "trace" / "tests.parquet", index=False)
    kept = [circuit.edges.assign(kind="latent", draw=np.int32(0)), circuit.controls.assign(kind="random")]
    effects = pd.concat(kept, ignore_index=True).drop(columns="q_value").astype({"kind": "category"})
    effects["p_value"] = 10.0 ** -rng.uniform(1.3, 12, len(effects))
    effects.to_parquet(run / "trace" / "effects.parquet", index=False)
    half = effects.iloc[: n // 2].drop(columns=["kind", "draw"])
    groups = pd.concat([half.assign(group_name="cell type", group=name) for name in ("B", "T")], ignore_index=True)
    groups["mean_delta"] += rng.normal(0, 0.1, len(groups)).astype("float32")
    groups = groups.astype({"group_name": "category", "group": "category"})
    groups.to_parquet(run / "trace" / "groups.parquet", index=False)


def main() -> None:
    """Generate, ask, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=25_000_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    values: list[tuple[str, float, str]] = [("analysis_edges", options.edges, "edges")]
    with tempfile.TemporaryDirectory() as folder:
        table = nodes(rng)
        circuit = Circuit(
            edges(table, options.edges, rng, dict(EDGES)), table, tests(table),
            edges(table, options.edges // 50, rng, dict(CONTROLS)), terms(table, rng), {"seed": 0},
        )  # fmt: skip
        circuit.write(Path(folder) / "circuit")
        size = sum(f.stat().st_size for f in (Path(folder) / "circuit").iterdir()) / 2**30
        write_tables(Path(folder), circuit, rng)
        values.append(("analysis_disk_gb", round(size, 2), "GiB"))
        del circuit
        for name in QUESTIONS:
            answer = subprocess.run(
                [sys.executable, "-c", ASK, name, folder], capture_output=True, text=True, check=True
            )
            seconds, cpu, peak = json.loads(answer.stdout.splitlines()[-1])
            values += [
                (f"analysis_{name}_seconds", round(seconds, 1), "s, reading included"),
                (f"analysis_{name}_cpu_seconds", round(cpu, 1), "s of processor time, all threads"),
                (f"analysis_{name}_peak_gb", round(peak, 2), "GiB of the process"),
            ]
            print(f"{name:16s} {seconds:8.1f} s {cpu:8.1f} s cpu {peak:6.2f} GiB", flush=True)
    write_rows("analysis", values, options.out)


if __name__ == "__main__":
    main()
