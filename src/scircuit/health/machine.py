"""The machine: Python and packages, extras, memory, devices, disk, and what the caches hold."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from scircuit.health.finding import Finding, fail, ok, tried, warn

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_PURPOSE = {
    "hub": "published checkpoints by name",
    "hf": "any Hugging Face encoder as the model",
    "scanpy": "cells that scanpy ships",
    "bio": "export for decoupler",
    "cluster": "tracing on Dask workers or SLURM",
    "leiden": "modules by the Leiden algorithm",
    "screens": "differential expression of CRISPR screens",
}
_GIB = 2**30
_LEAST_MEMORY, _LEAST_DISK = 2 * _GIB, 2 * _GIB


def check_machine(folder: Path) -> list[Finding]:
    """Everything that needs no config; `folder` is where results would go."""
    return [
        *tried("python", _python),
        *tried("packages", _packages),
        *tried("memory", memory),
        *tried("devices", _devices),
        *tried("disk", disk, folder),
        *tried("knowledge cache", _knowledge),
        *tried("checkpoints", _checkpoints),
    ]


def _python() -> Finding:
    from scircuit._version import __version__

    detail = f"{platform.python_version()}, scircuit {__version__}, {platform.system()} {platform.machine()}"
    return ok("python", detail) if sys.version_info >= (3, 11) else fail("python", detail, "use Python 3.11 or later")


def _packages() -> Iterator[Finding]:
    """Each requirement of the installed package, the required ones one by one, the others by extra."""
    from packaging.requirements import Requirement

    wanted: dict[str, list[tuple[str, str]]] = {}
    for text in metadata.requires("scircuit") or []:
        requirement = Requirement(text)
        extra = str(requirement.marker).rpartition("extra == ")[2].strip("\"' ") if requirement.marker else ""
        wanted.setdefault(extra, []).append((requirement.name, _problem(requirement)))
    for name, problem in wanted.pop("", []):
        version = _version(name)
        yield fail(name, problem, f"pip install --upgrade {name}") if problem else ok(name, version)
    for extra, parts in wanted.items():
        what, purpose = f"extra {extra}", _PURPOSE.get(extra, "")
        problems = [problem for _, problem in parts if problem]
        if problems:
            yield warn(what, f"{'; '.join(problems)} (for {purpose})", f"pip install 'scircuit[{extra}]'")
        else:
            yield ok(what, ", ".join(f"{name} {_version(name)}" for name, _ in parts))


def _problem(requirement: "Requirement") -> str:
    """Empty, or what is wrong with an installed package."""
    name, version = requirement.name, _version(requirement.name)
    if not version:
        return f"{name} is not installed"
    fits = requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"{name} {version} is not {requirement.specifier}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def memory() -> Finding:
    """Main memory: all of it, and what is free for this process."""
    total, free = main_memory()
    detail = f"{total / _GIB:.1f} GiB" + (f", {free / _GIB:.1f} GiB free" if free is not None else "")
    if (free if free is not None else total) < _LEAST_MEMORY:
        return warn("memory", detail, "close other programs, or set trace.memory in the config")
    return ok("memory", detail)


def main_memory() -> tuple[int, int | None]:
    """Bytes of main memory and bytes available, both within the limit of a container; None where not told."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = None
    info = Path("/proc/meminfo")
    if info.is_file():
        fields = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
        if free is not None and used.is_file():
            free = min(free, max(total - int(used.read_text()), 0))
    return total, free


def _devices() -> Iterator[Finding]:
    import torch

    from scircuit.runs.facts import hardware

    cpu = hardware(torch.device("cpu"))
    yield ok("device cpu", f"{cpu['cpu']}, {cpu['cores']} cores, {torch.get_num_threads()} threads")
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        detail = f"{torch.cuda.get_device_name(i)}, {total / _GIB:.1f} GiB, {free / _GIB:.1f} GiB free"
        if free < _LEAST_MEMORY:
            yield warn(f"device cuda:{i}", detail, "close what holds its memory, or choose another device")
        else:
            yield ok(f"device cuda:{i}", detail)
    if torch.backends.mps.is_available():
        detail = f"Apple GPU, {torch.mps.recommended_max_memory() / _GIB:.1f} GiB recommended"
        yield ok("device mps", f"{detail}; it has no float64, so sums are kept on the CPU")


def disk(folder: Path, what: str = "disk") -> Finding:
    """Free space where `folder` is or would be."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    detail = f"{free / _GIB:.1f} GiB free at {place}"
    return ok(what, detail) if free >= _LEAST_DISK else warn(what, detail, "free some, or set out to another disk")


def _knowledge() -> Finding:
    from scircuit.knowledge.registry import knowledge_folder, list_sources

    table = list_sources()
    cached = table.loc[table["state"] == "cached", "name"].tolist()
    detail = f"{knowledge_folder()}: {', '.join(cached) or 'empty'}"
    if blocked := unwritable(knowledge_folder()):
        return warn("knowledge cache", f"{detail}; {blocked}", "set SCIRCUIT_CACHE to a folder of yours")
    return ok("knowledge cache", detail)


def _checkpoints() -> Finding:
    from scircuit.models.hub import list_checkpoints_here, models_folder

    table = list_checkpoints_here()
    here = table.loc[table["state"] == "here", "name"].tolist()
    places = [str(models_folder())]
    try:
        from huggingface_hub import constants

        places.append(constants.HF_HUB_CACHE + (" (offline)" if constants.HF_HUB_OFFLINE else ""))
    except ImportError:
        places.append("no hub cache without huggingface_hub")
    return ok("checkpoints", f"{' and '.join(places)}: {', '.join(here) or 'none of the published ones'}")


def unwritable(folder: Path) -> str:
    """Empty when `folder` can be written or made, else why not."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not place.is_dir():
        return f"{place} is a file"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written"
