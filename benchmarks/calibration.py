"""What the grades of edges are worth where the truth is known: planted circuits, per width, norm, decoy and cells.

python benchmarks/calibration.py           # about five minutes on two cores; writes calibration.json
"""

import json
from pathlib import Path

from _common import hardware

from scircuit.circuits.schema import DECOYS
from scircuit.tracing.planted import planted
from scircuit.tracing.recovery import recover
from scircuit.tracing.settings import TraceSettings

WIDTHS, CELLS = (64, 128, 512), (20, 50, 100)
DEFAULT_DECOY = TraceSettings().decoy
FRESH = (11, 12, 13)
"""Worlds that had no part in choosing the score or the number of decoys; world 0 had."""


def worlds():
    """Every width and norm by every decoy, and by the default decoy in other numbers of cells and in fresh worlds."""
    for width in WIDTHS:
        for norm in ("post", "pre"):
            yield from ((width, norm, decoy, 50, 0) for decoy in DECOYS)
            yield from ((width, norm, DEFAULT_DECOY, n, 0) for n in CELLS if n != 50)
            yield from ((width, norm, DEFAULT_DECOY, 50, seed) for seed in FRESH)


def main() -> None:
    rows = []
    for width, norm, decoy, n_cells, seed in worlds():
        settings = TraceSettings(engine="exact", decoy=decoy, seed=seed)
        found = recover(planted(width, norm, seed), n_cells, settings, seed=seed)
        for row in found.table.to_dict("records"):
            rows.append({"width": width, "norm": norm, "decoy": decoy, "n_cells": n_cells, "world": seed, **row})
            print(rows[-1], flush=True)
    text = json.dumps({"hardware": hardware(), "rows": rows}, indent=1).replace("NaN", "null")
    (Path(__file__).parent / "calibration.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
