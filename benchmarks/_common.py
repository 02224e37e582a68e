"""What every benchmark shares: rows, the machine's name, and the table they end in."""

import datetime
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results"


class Row(NamedTuple):
    """One measured number."""

    measure: str
    value: float
    unit: str


def hardware() -> str:
    """CPU model and cores this process may use."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def write_rows(name: str, rows: Iterable[tuple[str, float, str]], out: Path = RESULTS, device: str = "") -> None:
    """Print the table and write `results/NAME.json`; rows measured earlier under other names stay.

    `device` names the accelerator that did the work, where one did.
    """
    today, machine = datetime.date.today().isoformat(), f"{device}, {hardware()}" if device else hardware()
    new = [
        {"measure": m, "value": float(f"{v:.4g}"), "unit": u, "hardware": machine, "date": today} for m, v, u in rows
    ]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    old = json.loads(path.read_text()) if path.is_file() else []
    measured = {row["measure"] for row in new}
    merged = [row for row in old if row["measure"] not in measured] + new
    for row in merged:
        print(f"{row['measure']:44s} {row['value']:>14,} {row['unit']}")
    path.write_text(json.dumps(merged, indent=2) + "\n")
