"""How long a dense CRISPR screen takes, and how little memory: streamed from a file larger than the working set.

`python benchmarks/screen.py [cells] [genes] [targets]`; 643,413 x 6,546 with 2,023 targets is the size of the largest
public screen (Replogle 2022, four lines, 17 GB dense). The file is written to a temporary folder and deleted.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from scircuit.perturbation import differential_expression, on_target, open_screen


def write(path: Path, n_cells: int, n_genes: int, n_targets: int, n_batches: int = 48) -> None:
    """Dense float32 log1p values of Poisson counts, cells in random order."""
    rng = np.random.default_rng(0)
    share = 0.06
    label = np.where(rng.random(n_cells) < share, "non-targeting", "")
    target = rng.integers(n_targets, size=n_cells)
    names = np.array([f"G{i}" for i in range(n_genes)])
    label = np.where(label == "", names[target], label)
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical(label),
            "gem_group": pd.Categorical(rng.integers(n_batches, size=n_cells).astype(str)),
        },
        index=np.arange(n_cells).astype(str),
    )
    rate = np.exp(rng.normal(-1, 1.2, n_genes)).astype(np.float32)
    with h5py.File(path, "w") as file:
        matrix = file.create_dataset("X", (n_cells, n_genes), dtype="float32")
        matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, n_cells, 4096):
            stop = min(start + 4096, n_cells)
            block = np.tile(rate, (stop - start, 1))
            own = (label[start:stop] != "non-targeting").nonzero()[0]
            block[own, target[start:stop][own]] *= 0.2
            matrix[start:stop] = np.log1p(rng.poisson(block))
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=names))


def main(n_cells: int = 60_000, n_genes: int = 2_000, n_targets: int = 400) -> None:
    """Write a screen, test every target, print times and the largest resident memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "screen.h5ad"
        write(path, n_cells, n_genes, n_targets)
        size = path.stat().st_size / 1e9
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        started = time.perf_counter()
        screen = open_screen(path)
        opened = time.perf_counter() - started
        started = time.perf_counter()
        fallen = on_target(screen)["p_fall"].lt(0.05).mean()
        streamed = time.perf_counter() - started
        started = time.perf_counter()
        effects = differential_expression(screen, memory=5e8)
        tested = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{n_cells:,} cells x {n_genes:,} genes, {len(screen.labels):,} targets, {size:.2f} GB dense on disk")
    print(f"open {opened:.1f} s; one pass of sums {streamed:.1f} s ({size / streamed:.2f} GB/s)")
    print(f"stratified Wilcoxon of {effects.p_value.size:,} (target, gene) in {tested:.0f} s, 48 batches")
    print(f"resident memory {peak:.2f} GB at most, {before:.2f} GB of it before opening; target falls in {fallen:.0%}")


if __name__ == "__main__":
    main(*(int(value.replace(",", "")) for value in sys.argv[1:]))
