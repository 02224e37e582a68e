"""What a run was computed with: versions and hardware, none of which decides its identity."""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from scircuit._version import __version__


def versions() -> dict[str, str]:
    """Versions of what a number depends on."""
    names = ("torch", "numpy", "scipy", "pandas", "anndata")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"scircuit": __version__, "python": platform.python_version(), **found}


def hardware(device: torch.device) -> dict[str, str | int]:
    """Name of the processor, its usable cores, and the accelerator's name where one was used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts: dict[str, str | int] = {"cpu": _processor(), "cores": cores}
    if device.type == "cuda":
        facts["device"] = torch.cuda.get_device_name(device)
    elif device.type != "cpu":
        facts["device"] = device.type
    return facts


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
