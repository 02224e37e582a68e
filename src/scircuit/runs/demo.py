"""The demonstration: the packaged models on cells that need no download, beside a circuit whose truth is known."""

import logging
import time
from pathlib import Path

from scircuit._packaged import PACKAGED
from scircuit._tables import write_parquet
from scircuit.config import RunConfig
from scircuit.config_file import parse_config
from scircuit.errors import ScircuitError
from scircuit.report.planted import RECOVERED
from scircuit.runs.report import report
from scircuit.runs.run import Run
from scircuit.runs.stages import run
from scircuit.tracing.planted import planted
from scircuit.tracing.recovery import recover

log = logging.getLogger(__name__)
PLANTED_WIDTH, PLANTED_CELLS = 128, 50
"""The width of the packaged models, and cells with which planted circuits are told at that width."""


def demo_config(model: str, out: Path, seed: int = 0, *, train: bool = False) -> RunConfig:
    """The demonstration's run of one packaged model, with the dictionaries that ship with it or trained ones."""
    trained = {"k": 16, "n_steps": 200, "batch_rows": 512, "buffer_rows": 100_000}
    shares = {"train": 0.4, "catalogue": 0.4, "discovery": 0.1, "confirmation": 0.1}
    return parse_config(
        {
            "name": model,
            "out": str(out / model),
            "seed": seed,
            "model": {"source": model, "device": "cpu"},
            "cells": {
                "path": "scanpy:pbmc68k_reduced",
                "counts": "raw",
                "scale": "log1p",
                "n": 500,
                "shares": shares,
                "obs": ["bulk_labels"],
            },
            "sae": {"quality_cells": 32, **(trained if train else {"path": model})},
            "features": {"control_draws": 4, "pair_cells": 40},
            "sources": {"n": 5, "min_frequency": 0.005},
            "trace": {"n_cells": 40, "cells_per_block": 20},
            "confirmation": {"n_cells": 20},
        }
    )


def demo(out: Path, *, seed: int = 0, train: bool = False) -> Path:
    """Both packaged models on cells that they never saw, from tokens to one report; returns its path.

    Dictionaries are those that ship with the models; with `train` short ones are trained on the demonstration's own
    cells. Beside them stands what the same rule finds of circuits planted by hand, where every edge is known.

    Raises
    ------
    ScircuitError
        When `out` holds anything but an earlier demonstration with the same seed and dictionaries.
    """
    out = Path(out)
    configs = [demo_config(model, out, seed, train=train) for model in PACKAGED]
    for config in configs:
        Run.open(config)
    allowed = (*PACKAGED, "planted", "report")
    foreign = sorted(p.name for p in out.iterdir() if p.name not in allowed) if out.is_dir() else []
    if foreign or ((out / "report").exists() and not (out / PACKAGED[0]).is_dir()):
        raise ScircuitError(
            f"{out} holds something else than a demonstration ({(foreign or ['report'])[0]}); choose an empty or new "
            "folder with --out."
        )
    folders = []
    for config in configs:
        started = time.monotonic()
        folders.append(run(config, until="analysis"))
        log.info("%s: traced and analysed in %.0f s", config.name, time.monotonic() - started)
    return report(folders, out / "report", recovered=_planted(out / "planted", seed))


def _planted(folder: Path, seed: int) -> Path:
    """Trace the planted circuits once, and file what was recovered of them; returns the folder."""
    if not (folder / RECOVERED).is_file():
        found = recover(planted(PLANTED_WIDTH, seed=seed), PLANTED_CELLS, seed=seed)
        found.circuit.write(folder / "circuit")
        write_parquet(folder / RECOVERED, found.table)
        log.info("planted circuits: traced and compared with what was planted")
    return folder
