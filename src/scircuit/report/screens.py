"""What knock-down screens say of a circuit, as `scircuit validate` leaves it in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import read_json

RECORD = "validation.json"


@dataclass(frozen=True)
class ScreenTables:
    """One validation.

    `record` holds the screen's facts, the settings and the sentences; `summary` and `comparison` have one row per
    (definition, stratum, method, metric) and per (definition, stratum, metric).
    """

    name: str
    record: dict[str, Any]
    summary: pd.DataFrame
    comparison: pd.DataFrame


def screens_of(run: Path) -> tuple[Path, ...]:
    """Folders of the whole validations of a run, in the order of their names."""
    return tuple(sorted(path.parent for path in (run / "validation").glob(f"*/{RECORD}")))


def read_screen(folder: Path) -> ScreenTables:
    """Read what `scircuit validate` wrote."""
    summary, comparison = (pd.read_parquet(folder / f"{name}.parquet") for name in ("summary", "comparison"))
    return ScreenTables(folder.name, read_json(folder / RECORD), summary, comparison)
