"""Reading weight files so that nothing in them is run, and damage is told in one sentence."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scircuit.errors import ScircuitError

_PROGRAM = re.compile(r"[^/]*/(constants\.pkl|code/.*)")
"""Members by which torch takes an archive for TorchScript, which runs its code while it is loaded."""


def _require(path: Path) -> None:
    if not path.is_file():
        raise ScircuitError(f"{path} does not exist; put the published weights there or pass another folder.")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, memory-mapped on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _require(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ScircuitError(
            f"{path} is not a whole safetensors file ({error}); it is truncated or damaged: download it again."
        ) from None


def read_pt(path: Path) -> Any:
    """Tensors and plain values of a file that `torch.save` wrote, memory-mapped; no code of the file is run.

    What would run code, or take more memory than the file has bytes, is refused before torch sees it.
    """
    import torch

    _require(path)
    _check_archive(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip, pickle and runtime errors alike mean a file that cannot be trusted
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScircuitError(
            f"{path} is truncated, damaged or holds code: more than tensors and plain values ({first}); only such "
            "files are opened."
        ) from None
    size = path.stat().st_size
    if any(t.numel() * t.element_size() > size for t in _tensors(content)):
        raise ScircuitError(f"{path} holds a tensor larger than the file itself; save its tensors whole (contiguous).")
    return content


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A PyTorch state dict, see `read_pt`."""
    content = read_pt(path)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ScircuitError(f"{path} holds something else than a flat state dict; take the published best_model.pt.")
    return content


def _check_archive(path: Path) -> None:
    """Refuse what is no zip archive of tensors by the names and sizes of its members."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ScircuitError(
            f"{path} is truncated or no file of torch.save ({error}); copy it again, or save it with PyTorch 1.6 or "
            "newer."
        ) from None
    program = next((member.filename for member in members if _PROGRAM.fullmatch(member.filename)), None)
    if program is not None:
        raise ScircuitError(
            f"{path} holds a TorchScript program ({program}), which opening it would run, so more than tensors and "
            "plain values; save its state_dict() with torch.save."
        )
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ScircuitError(
            f"{path} unpacks to more than its own size, which no file of torch.save does; copy it again."
        )


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor within mappings and lists, which may hold themselves."""
    waiting, seen = [content], set()
    while waiting:
        held = waiting.pop()
        if isinstance(held, Tensor):
            yield held
        elif isinstance(held, Mapping | list | tuple) and id(held) not in seen:
            seen.add(id(held))
            waiting.extend(held.values() if isinstance(held, Mapping) else held)
