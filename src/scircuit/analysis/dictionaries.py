"""Which latents of two sets of dictionaries are the same: nearest decoder directions, without torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._io import read_json
from scircuit.errors import ScircuitError

_CHUNK = 1 << 11


def match_dictionaries(first: str | Path, second: str | Path) -> pd.DataFrame:
    """The nearest direction in `second` of every latent of `first`, layer by layer.

    Parameters
    ----------
    first, second : folder
        Dictionaries (`manifest.json`, `layer_00/sae_weights.safetensors`, ...) of one model under one protocol.

    Returns
    -------
    DataFrame
        `layer, feature_first, feature_second, similarity` (cosine of the decoder directions), over the layers that
        both have; what `seed_stability` reads.

    Raises
    ------
    ScircuitError
        Dictionaries of different models or protocols, or without a layer in common.
    """
    manifests = [_manifest(Path(folder)) for folder in (first, second)]
    for fact in ("fingerprint", "protocol"):
        a, b = (m["model"].get(fact) for m in manifests)
        if a != b:
            raise ScircuitError(
                f"the dictionaries of {first} and {second} describe models of different {fact} ({str(a)[:12]}, "
                f"{str(b)[:12]}); their directions cannot be matched: compare runs of one model and protocol."
            )
    layers = sorted(set(manifests[0]["layers"]) & set(manifests[1]["layers"]), key=int)
    if not layers:
        raise ScircuitError(f"{first} and {second} have no layer in common; train both on the same layers.")
    tables = []
    for layer in layers:
        own, other = (
            _directions(Path(folder) / m["layers"][layer]["path"])
            for folder, m in zip((first, second), manifests, strict=True)
        )
        best, similarity = _nearest(own, other)
        tables.append(
            pd.DataFrame(
                {
                    "layer": np.int16(layer),
                    "feature_first": np.arange(len(own)),
                    "feature_second": best,
                    "similarity": similarity,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _manifest(folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    content = read_json(folder / "manifest.json")
    if not {"model", "layers"} <= set(content):
        raise ScircuitError(f"{folder} holds no dictionaries (no model and layers in its manifest.json).")
    return dict(content)


def _directions(folder: Path) -> np.ndarray:
    """Unit decoder directions `[latent, d_model]`."""
    from safetensors import safe_open

    with safe_open(folder / "sae_weights.safetensors", framework="numpy") as file:
        weights = file.get_tensor("W_dec").astype(np.float32)
    return weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index into `b` and cosine of the nearest direction of every row of `a`."""
    parts = [a[i : i + _CHUNK] @ b.T for i in range(0, len(a), _CHUNK)]
    best = np.concatenate([part.argmax(axis=1) for part in parts])
    return best, np.concatenate([part.max(axis=1) for part in parts])
