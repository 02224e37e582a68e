"""Reading weight files so that damage is told in one sentence."""

from pathlib import Path
from typing import Any

from torch import Tensor

from scircuit.errors import ScircuitError


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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A PyTorch state dict, loaded with `weights_only=True` (no code of the file is run)."""
    import torch

    _require(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip, pickle and runtime errors alike mean a file that cannot be trusted
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ScircuitError(
            f"{path} is not a whole PyTorch state dict ({first}); it is truncated, damaged or holds code: "
            "download the published file again."
        ) from None
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ScircuitError(f"{path} holds something else than a flat state dict; take the published best_model.pt.")
    return content
