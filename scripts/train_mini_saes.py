"""Train the dictionaries that ship with the two small models, on the cells that the models were trained on.

    python scripts/train_mini_saes.py geneformer-mini --cells FOLDER
    python scripts/train_mini_saes.py scgpt-mini --cells FOLDER

FOLDER as for `train_mini.py`. Everything is seeded. The manifest beside the weights holds what the model's card shows:
how much of the residual each layer's dictionary explains in cells that it did not learn from, and how well its latents
are found again under another seed.
"""

import argparse
import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from train_mini import read_cells

from scircuit._packaged import PACKAGED, sae_folder
from scircuit.config_file import parse_config
from scircuit.runs.stages import run
from scircuit.sae.checkpoint import MANIFEST

SETTINGS = {
    "expansion": 4, "k": 16, "n_steps": 1000, "batch_rows": 2048, "buffer_rows": 200_000, "quality_cells": 100,
    "stability_seeds": 1,
}  # fmt: skip
SHARES = {"train": 0.85, "catalogue": 0.05, "discovery": 0.05, "confirmation": 0.05}


def train(model: str, cells: Path, out: Path) -> None:
    """Train the dictionaries of a packaged model and put them into `out`."""
    with TemporaryDirectory() as folder:
        data = Path(folder) / "training_cells.h5ad"
        adata = read_cells(cells)
        adata.write_h5ad(data)
        config = {
            "name": model,
            "out": str(Path(folder) / "run"),
            "model": {"source": model, "device": "cpu"},
            "cells": {"path": str(data), "n": adata.n_obs, "shares": SHARES},
            "sae": SETTINGS,
        }
        trained = run(parse_config(config), until="train-sae").stage("saes")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for path in (*sorted(trained.glob("layer_*")), trained / MANIFEST):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, out / path.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=PACKAGED)
    parser.add_argument("--cells", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(options.model, options.cells, sae_folder(options.model))
