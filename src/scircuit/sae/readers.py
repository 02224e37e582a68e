"""Dictionaries of any origin: which format a folder is in, and reading one or all of its layers."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from scircuit.errors import ScircuitError
from scircuit.sae.base import LinearSAE
from scircuit.sae.formats import (
    is_openai_file,
    read_circuit_tracer,
    read_dictionary_learning,
    read_openai,
    read_sparsify,
    read_study,
)
from scircuit.sae.saelens import WEIGHTS, read_saelens

_READERS: dict[str, Callable[[Path], LinearSAE]] = {
    "saelens": read_saelens,
    "sparsify": read_sparsify,
    "dictionary_learning": read_dictionary_learning,
    "openai": read_openai,
    "study": read_study,
}


def detect(folder: str | Path) -> str:
    """Name of the format of a folder (or of an OpenAI file), from the files that lie in it."""
    folder = Path(folder)
    if folder.is_file() and folder.suffix == ".pt":
        return "openai"
    if not folder.is_dir():
        raise ScircuitError(f"{folder} does not exist; point to the folder of an SAE.")
    names = {path.name for path in folder.iterdir()}
    fitting = [name for name, fits in _SIGNATURES.items() if fits(names)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ScircuitError(
            f"{folder} fits several SAE formats ({', '.join(fitting)}), because it holds {', '.join(sorted(names))}; "
            "move each dictionary into a folder of its own."
        )
    raise ScircuitError(
        f"{folder} holds no SAE that can be read; it holds {', '.join(sorted(names)[:8]) or 'nothing'}. "
        f"Known formats: {', '.join(_SIGNATURES)}."
    )


_SIGNATURES: dict[str, Callable[[set[str]], bool]] = {
    "saelens": lambda names: WEIGHTS in names,
    "sparsify": lambda names: "sae.safetensors" in names,
    "dictionary_learning": lambda names: "ae.pt" in names,
    "circuit_tracer": lambda names: any(re.fullmatch(r"layer_\d+\.safetensors", name) for name in names),
    "openai": lambda names: any(is_openai_file(name) for name in names),
    "study": lambda names: "sae_final.pt" in names,
}


def read_sae(path: str | Path, *, layer: int | None = None, device: torch.device | str = "cpu") -> LinearSAE:
    """Read one dictionary of any known format, from its folder or an OpenAI `.pt` file.

    `layer` (0-based) picks one from a circuit-tracer folder, is checked where the files tell it, and otherwise taken as
    given.
    """
    path = Path(path)
    name = detect(path)
    if name == "circuit_tracer":
        if layer is None:
            raise ScircuitError(f"{path} holds one transcoder per layer; say which layer to read.")
        return read_circuit_tracer(path, layers=[layer])[layer].to(device)
    sae = _READERS[name](path)
    if layer is not None:
        if sae.config.layer not in (None, layer):
            raise ScircuitError(
                f"the SAE in {path} was trained on layer {sae.config.layer}, not {layer}; ask for its own."
            )
        sae.config = replace(sae.config, layer=layer)
    return sae.to(device)


def read_saes(root: str | Path, *, device: torch.device | str = "cpu") -> dict[int, LinearSAE]:
    """Layer -> dictionary, ascending, from a circuit-tracer folder or a folder with one folder per layer."""
    root = Path(root)
    if not root.is_dir():
        raise ScircuitError(f"{root} does not exist; point to a folder with one SAE folder per layer.")
    if _SIGNATURES["circuit_tracer"]({path.name for path in root.iterdir()}):
        return {layer: sae.to(device) for layer, sae in read_circuit_tracer(root).items()}
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    if not folders:
        raise ScircuitError(f"{root} holds no folders; point to a folder with one SAE folder per layer.")
    saes: dict[int, LinearSAE] = {}
    for folder in folders:
        sae = read_sae(folder, device=device)
        layer = sae.config.layer
        if layer is None:
            raise ScircuitError(
                f"{folder} does not tell its layer; read it alone and name it: read_sae(path, layer=...)."
            )
        if layer in saes:
            raise ScircuitError(
                f"{root} holds two SAEs of layer {layer}, the second in {folder.name}; keep one of them."
            )
        saes[layer] = sae
    return dict(sorted(saes.items()))
