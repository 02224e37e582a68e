"""Dictionaries of several layers in one folder: a SAELens directory each, under one `manifest.json`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scircuit._io import read_json, sha256_file, sha256_of, within, write_json
from scircuit._packaged import sae_folder
from scircuit.errors import ScircuitError
from scircuit.sae.base import LinearSAE
from scircuit.sae.saelens import CONFIG, SPARSITY, read_saelens, write_saelens

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


def save_saes(
    root: str | Path,
    saes: Mapping[int, LinearSAE],
    *,
    model: str,
    model_fingerprint: str,
    protocol: str,
    metadata: Mapping[str, Any] | None = None,
    metrics: Mapping[int, Mapping[str, float]] | None = None,
    log_sparsity: Mapping[int, Tensor] | None = None,
) -> None:
    """Write `root/layer_00/...` for every layer, then the manifest that makes them a whole.

    Parameters
    ----------
    model, model_fingerprint, protocol
        What the dictionaries were trained on; `load_saes` refuses them for anything else.
    metadata
        Anything JSON-able about the training: settings, cells, versions.
    metrics
        Per layer, numbers to keep in the manifest (see `SaeQuality`).
    log_sparsity
        Per layer, log10 of each latent's firing frequency, `[n_latents]` (see `QualityAccumulator.log_sparsity`).

    Raises
    ------
    ScircuitError
        If a dictionary is filed under a layer that its configuration contradicts.
    """
    root = Path(root)
    entries = {}
    for layer, sae in sorted(saes.items()):
        if sae.config.layer not in (None, layer):
            raise ScircuitError(
                f"the SAE given for layer {layer} was trained on layer {sae.config.layer}; file it under its own layer."
            )
        folder = root / f"layer_{layer:02d}"
        config = replace(
            sae.config,
            layer=layer,
            model=model,
            model_fingerprint=model_fingerprint,
            protocol=protocol,
            metadata=dict(metadata or {}),
        )
        files = write_saelens(folder, sae, config=config, log_sparsity=(log_sparsity or {}).get(layer))
        entries[str(layer)] = {
            "path": folder.name,
            "architecture": sae.config.architecture,
            "d_in": sae.d_in,
            "n_latents": sae.n_latents,
            "k": sae.config.k,
            "sha256": {file.name: sha256_file(file) for file in files},
            "metrics": dict((metrics or {}).get(layer, {})),
        }
    manifest = {
        "format_version": FORMAT_VERSION,
        "model": {"name": model, "fingerprint": model_fingerprint, "protocol": protocol},
        "metadata": dict(metadata or {}),
        "layers": entries,
    }
    write_json(root / MANIFEST, manifest)


def load_saes(
    root: str | Path,
    *,
    layers: Iterable[int] | None = None,
    model_fingerprint: str | None = None,
    d_model: int | None = None,
    protocol: str | None = None,
    device: torch.device | str = "cpu",
) -> dict[int, LinearSAE]:
    """Read the dictionaries that `save_saes` wrote, bit for bit: layer -> dictionary, in ascending order of layers.

    `root` is their folder, or the name of a packaged model for those that ship with it.
    `model_fingerprint`, `d_model` and `protocol` are what they must have been trained on; None leaves it unchecked.

    Raises
    ------
    ScircuitError
        If the folder, a layer, a file or a key is missing, a file is truncated or changed, or the dictionaries
        belong to another model, protocol, width or layer.
    """
    root = sae_folder(root)
    manifest = read_manifest(root)
    made_for = manifest["model"]
    if protocol is not None and made_for["protocol"] != protocol:
        raise ScircuitError(
            f"the SAEs in {root} were trained on cells tokenised as {made_for['protocol']!r}, this run tokenises as "
            f"{protocol!r}; use the same protocol or train SAEs for this one."
        )
    if model_fingerprint is not None and made_for["fingerprint"] != model_fingerprint:
        raise ScircuitError(
            f"the SAEs in {root} were trained on another model ({made_for['name']}, fingerprint "
            f"{made_for['fingerprint'][:12]}, not {model_fingerprint[:12]}); load it or train SAEs for this one."
        )
    present = sorted(int(layer) for layer in manifest["layers"])
    wanted = present if layers is None else sorted(layers)
    for layer in wanted:
        if layer not in present:
            raise ScircuitError(f"{root} holds no SAE for layer {layer}; it has layers {present}.")
    return {layer: _load_layer(root, layer, manifest["layers"][str(layer)], d_model).to(device) for layer in wanted}


def read_manifest(root: str | Path) -> dict[str, Any]:
    """The manifest of a folder of dictionaries: model, metadata, and per layer its files, hashes and metrics."""
    root = Path(root)
    if not (root / MANIFEST).exists():
        raise ScircuitError(
            f"{root} holds no {MANIFEST}; train SAEs into it with `scircuit train-sae`, or read dictionaries of "
            "another origin with scircuit.sae.readers.read_sae."
        )
    manifest = read_json(root / MANIFEST)
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ScircuitError(
            f"{root / MANIFEST} has format_version {version!r}, this scircuit reads {FORMAT_VERSION}; "
            "use the scircuit that wrote it or train again."
        )
    missing = [key for key in ("model", "layers") if key not in manifest]
    missing += [f"model.{key}" for key in ("name", "fingerprint", "protocol") if key not in manifest.get("model", {})]
    for layer, entry in manifest.get("layers", {}).items():
        missing += [f"layers.{layer}.{key}" for key in ("path", "sha256") if key not in entry]
    if missing:
        raise ScircuitError(f"{root / MANIFEST} lacks {', '.join(missing)}; it was edited, restore or train again.")
    return manifest


def dictionaries_hash(root: str | Path) -> str:
    """What the dictionaries of a folder are: hash of model and weights, not of what was measured of them."""
    manifest = read_manifest(root)
    measured = (CONFIG, SPARSITY)
    layers = {
        layer: [
            entry.get("architecture"),
            entry.get("k"),
            *sorted((name, value) for name, value in entry["sha256"].items() if name not in measured),
        ]
        for layer, entry in manifest["layers"].items()
    }
    return sha256_of(manifest["model"]["fingerprint"], layers)


def _load_layer(root: Path, layer: int, entry: Mapping[str, Any], d_model: int | None) -> LinearSAE:
    folder = within(root, entry["path"])
    for name, expected in entry["sha256"].items():
        within(folder, name)
        if not (folder / name).exists():
            raise ScircuitError(f"{folder / name} does not exist; the SAE folder is incomplete, copy it again.")
        # A changed configuration is told by what is missing in it, below, rather than by its hash.
        if name != CONFIG and sha256_file(folder / name) != expected:
            raise ScircuitError(
                f"{folder / name} is truncated or was changed since {root / MANIFEST} was written; copy it again."
            )
    sae = read_saelens(folder)
    if sae.config.layer != layer:
        raise ScircuitError(
            f"{folder} holds an SAE of layer {sae.config.layer}, but {MANIFEST} files it under layer {layer}; "
            "put the folders back in their places."
        )
    if d_model is not None and sae.d_in != d_model:
        raise ScircuitError(
            f"the SAE in {folder} reads residuals of width {sae.d_in}, the model's are {d_model} wide; "
            "load SAEs that were trained on this model."
        )
    return sae
