"""Annotating 80,000 latents with 10,000 gene sets: all at once, beside a Fisher test at a time.

    python benchmarks/annotate.py [--latents N] [--sets N] [--out DIR]

Synthetic queries (20 genes each, popular genes drawn more often, half of them with 5 genes planted from one set)
against sets of the sizes that GO and Reactome have. The loop runs on a few latents and is scaled up. Prints a table
and writes results/annotate.json, rows of {measure, value, unit, hardware, date}.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from _common import write_rows
from scipy.stats import fisher_exact

from scircuit.features.enrichment import enrich
from scircuit.knowledge.gmt import GeneSets

N_GENES = 20_000


def make_case(n_latents: int, n_sets: int) -> tuple[pd.DataFrame, GeneSets, pd.DataFrame]:
    """Features, sets and background."""
    rng = np.random.default_rng(0)
    symbols = np.array([f"G{i}" for i in range(N_GENES)])
    popularity = rng.lognormal(0, 1, N_GENES)
    sizes = np.clip(rng.lognormal(3.2, 1.1, n_sets), 5, 2000).astype(int)
    # Exponential races: the k smallest of Exp(popularity) are k genes drawn without replacement by popularity.
    members = [np.argpartition(rng.exponential(1 / popularity), k)[:k].copy() for k in sizes]
    sets = GeneSets.from_dict("synthetic", {f"set {j}": symbols[genes].tolist() for j, genes in enumerate(members)})
    drawn = rng.choice(N_GENES, (n_latents, 24), p=popularity / popularity.sum())
    top = []
    for i, genes in enumerate(drawn):
        planted = members[rng.integers(n_sets)][:5] if i % 2 else genes[:5]
        top.append(symbols[np.unique(np.concatenate([planted, genes[5:]]))[:20]].tolist())
    features = pd.DataFrame({"layer": 0, "feature": np.arange(n_latents), "top_genes": top})
    return features, sets, pd.DataFrame({"symbol": symbols, "ensembl_id": ""})


def fisher_loop(features: pd.DataFrame, sets: GeneSets, seconds: float) -> float:
    """Seconds per latent of one scipy test per (latent, set), over as many latents as the time allows."""
    members = [set(genes) for genes in sets.genes.values()]
    start = time.perf_counter()
    done = 0
    for query in map(set, features["top_genes"]):
        for genes in members:
            a = len(query & genes)
            b, c = len(query) - a, len(genes) - a
            fisher_exact([[a, b], [c, N_GENES - a - b - c]], alternative="greater")
        done += 1
        if time.perf_counter() - start > seconds:
            break
    return (time.perf_counter() - start) / done


def main() -> None:
    """Run both roads and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=80_000)
    parser.add_argument("--sets", type=int, default=10_000)
    parser.add_argument("--loop-seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    features, sets, background = make_case(options.latents, options.sets)
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    result = enrich(features, sets, background)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    per_latent = fisher_loop(features, sets, options.loop_seconds)
    values = [
        ("annotate_latents", len(features), "latents"),
        ("annotate_sets", len(sets), "sets"),
        ("annotate_tests", result.meta["n_tests"], "tests"),
        ("annotate_significant", len(result.terms), "pairs"),
        ("annotate_seconds", round(seconds, 2), "s"),
        ("annotate_peak_gb", round(peak, 2), "GiB of the process, inputs included"),
        ("annotate_inputs_gb", round(baseline, 2), "GiB, the inputs alone"),
        ("annotate_fisher_loop_seconds_per_latent", round(per_latent, 3), "s"),
        ("annotate_fisher_loop_seconds", round(per_latent * len(features)), "s, scaled from a subsample"),
        ("annotate_speedup", round(per_latent * len(features) / seconds), "x"),
    ]
    write_rows("annotate", values, options.out)


if __name__ == "__main__":
    main()
