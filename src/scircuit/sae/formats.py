"""Dictionaries in the file formats of other projects, one function per format.

None of these formats says which model, in which precision and under which tokenisation, the dictionary was trained
on, so `model_fingerprint` stays empty: whoever reads one answers for its belonging to the model.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scircuit._io import read_json
from scircuit.errors import ScircuitError
from scircuit.models.files import read_pt
from scircuit.sae.base import LinearSAE, SaeConfig
from scircuit.sae.saelens import CONFIG, build_sae, read_tensors, require_tensors, scale_to_unit_decoder


def read_sparsify(folder: Path) -> LinearSAE:
    """EleutherAI sparsify: `cfg.json`, `sae.safetensors`; z = TopK(ReLU(W (h - b_dec) + b)).

    The layer is taken from the folder's name (`layers.5`, the hook point).
    """
    cfg = _mapping(read_json(folder / CONFIG), folder / CONFIG, ["k", "d_in"])
    if cfg.get("activation", "topk") != "topk":
        raise ScircuitError(f"{folder / CONFIG} has activation {cfg['activation']!r}; only topk can be read.")
    tensors = _read_without_skip(folder / "sae.safetensors", folder)
    require_tensors(tensors, {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}, str(folder))
    transcoder = bool(cfg.get("transcode", False))
    named = re.search(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)$", folder.name)
    config = SaeConfig(
        "topk",
        cfg["d_in"],
        len(tensors["W_dec"]),
        k=cfg["k"],
        layer=int(named[1]) if named else None,
        reads=folder.name,
        writes=f"output of {folder.name}" if transcoder else folder.name,
    )
    b_dec, mean = (tensors["b_dec"], None) if transcoder else (None, tensors["b_dec"])
    return build_sae(config, tensors["encoder.weight"].T, tensors["encoder.bias"], tensors["W_dec"], b_dec, mean)


def read_dictionary_learning(folder: Path) -> LinearSAE:
    """Marks et al. dictionary_learning: `ae.pt`, `config.json` with `trainer.dict_class`.

    BatchTopK and Matryoshka are used by their threshold, as their own `encode` does by default.
    """
    path = folder / "config.json"
    trainer = _mapping(_mapping(read_json(path), path, ["trainer"])["trainer"], path, ["dict_class"])
    kind = trainer["dict_class"]
    tensors = dict(_load_pt(folder / "ae.pt"))
    source = f"{folder / 'ae.pt'} ({kind})"
    if kind not in _DICT_CLASSES:
        raise ScircuitError(f"{path} names dict_class {kind!r}; {', '.join(_DICT_CLASSES)} can be read.")
    architecture, names = _DICT_CLASSES[kind]
    if kind in ("AutoEncoderTopK", "MatryoshkaBatchTopKSAE"):
        # Buffers that some versions write and others do not, and that these encoders do not use.
        tensors = {name: t for name, t in tensors.items() if name in names or name not in ("threshold", "group_sizes")}
    require_tensors(tensors, names, source)
    if "encoder.weight" in tensors:
        parts = {
            "W_enc": tensors["encoder.weight"].T,
            "b_enc": tensors["encoder.bias"],
            "W_dec": tensors["decoder.weight"].T,
        }
    else:
        parts = {name: tensors[name] for name in ("W_enc", "b_enc", "W_dec")}
    if "threshold" in names:
        parts["threshold"] = tensors["threshold"].float().expand(len(parts["b_enc"]))
        if kind != "JumpReluAutoEncoder" and float(tensors["threshold"]) < 0:
            raise ScircuitError(f"the threshold in {source} was never set; train it further with dictionary_learning.")
    if kind == "JumpReluAutoEncoder":
        parts = scale_to_unit_decoder(parts)
        parts["threshold"] = parts["threshold"].clamp_min(0)
    bias = tensors[next(name for name in ("b_dec", "bias", "decoder.bias") if name in tensors)]
    b_dec, mean = (bias, None) if kind in ("JumpReluAutoEncoder", "AutoEncoderNew") else (None, bias)
    k = int(tensors["k"]) if "k" in tensors else trainer.get("k")
    config = SaeConfig(
        architecture,
        parts["W_dec"].shape[1],
        parts["W_dec"].shape[0],
        k=k if architecture == "topk" else None,
        layer=trainer.get("layer"),
        model=trainer.get("lm_name") or "",
        metadata={"dict_class": kind},
    )
    return build_sae(config, parts["W_enc"], parts["b_enc"], parts["W_dec"], b_dec, mean, parts.get("threshold"))


_LINEAR = {"encoder.weight", "encoder.bias", "decoder.weight"}
_MATRICES = {"W_enc", "b_enc", "W_dec", "b_dec"}
_DICT_CLASSES = {
    "AutoEncoder": ("standard", {*_LINEAR, "bias"}),
    "AutoEncoderNew": ("standard", {*_LINEAR, "decoder.bias"}),
    "AutoEncoderTopK": ("topk", {*_LINEAR, "b_dec", "k"}),
    "BatchTopKSAE": ("jumprelu", {*_LINEAR, "b_dec", "k", "threshold"}),
    "MatryoshkaBatchTopKSAE": ("jumprelu", {*_MATRICES, "k", "threshold"}),
    "JumpReluAutoEncoder": ("jumprelu", {*_MATRICES, "threshold"}),
}


# dictionary_learning, the study, SAELens, and what sparsify leaves in the folder of a run.
_OTHERS_PT = r"(ae|sae_final|trainer_state|state|rank_\d+_state|optimizer_\d+|lr_scheduler_\d+)\.pt"


def is_openai_file(name: str) -> bool:
    """Whether a file could be OpenAI's: a `.pt` whose name is no other format's."""
    return name.endswith(".pt") and not re.fullmatch(_OTHERS_PT, name)


def read_openai(path: Path) -> LinearSAE:
    """OpenAI sparse_autoencoder: one `.pt`; TopK dictionaries layer-normalise their input, ReLU ones do not."""
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if is_openai_file(file.name)]
        if len(files) != 1:
            raise ScircuitError(f"{path} holds {len(files)} .pt files ({', '.join(f.name for f in files)}); name one.")
        path = files[0]
    state = dict(_load_pt(path))
    activation = state.pop("activation", "ReLU")
    options = state.pop("activation_state_dict", {})
    if activation not in ("ReLU", "TopK"):
        raise ScircuitError(f"{path} has activation {activation!r}; ReLU and TopK can be read.")
    for name in ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"):
        state.pop(name, None)
    require_tensors(state, {"pre_bias", "latent_bias", "encoder.weight", "decoder.weight"}, str(path))
    architecture, k = "standard", None
    if activation == "TopK":
        missing = [key for key in ("k", "postact_fn") if key not in options]
        if missing or options["postact_fn"] not in ("ReLU", "Identity"):
            raise ScircuitError(
                f"{path} is a TopK SAE whose activation_state_dict is {dict(options)}; it needs k and "
                "postact_fn (ReLU or Identity)."
            )
        architecture, k = ("topk" if options["postact_fn"] == "ReLU" else "signed_topk"), int(options["k"])
    n_latents, d_in = state["encoder.weight"].shape
    input_norm = "layer_norm" if activation == "TopK" else "none"
    config = SaeConfig(architecture, d_in, n_latents, k=k, input_norm=input_norm)
    W_enc, W_dec = state["encoder.weight"].T, state["decoder.weight"].T
    return build_sae(config, W_enc, state["latent_bias"], W_dec, None, state["pre_bias"])


def read_circuit_tracer(folder: str | Path, *, layers: Iterable[int] | None = None) -> dict[int, LinearSAE]:
    """circuit-tracer transcoder set: `config.yaml`, `layer_<i>.safetensors`; layer -> transcoder.

    What they read and write is kept in the configuration, and tracing refuses them where the two differ. Their TopK
    has no ReLU (`signed_topk`).
    """
    folder = Path(folder)
    yaml = _flat_yaml(folder / "config.yaml")
    missing = [key for key in ("model_kind", "feature_input_hook", "feature_output_hook") if key not in yaml]
    if missing:
        raise ScircuitError(
            f"{folder / 'config.yaml'} lacks {', '.join(missing)}; add what the transcoders read and write."
        )
    if yaml["model_kind"] != "transcoder_set":
        raise ScircuitError(
            f"{folder} holds a {yaml['model_kind']}, whose features write to many layers; only a transcoder_set, one "
            "transcoder per layer, can be read."
        )
    files = {int(file.stem.removeprefix("layer_")): file for file in folder.glob("layer_*.safetensors")}
    wanted = sorted(files) if layers is None else list(layers)
    for layer in wanted:
        if layer not in files:
            raise ScircuitError(f"{folder} holds no transcoder for layer {layer}; it has layers {sorted(files)}.")
    return {layer: _read_transcoder(files[layer], layer, yaml) for layer in wanted}


def _read_transcoder(path: Path, layer: int, yaml: Mapping[str, Any]) -> LinearSAE:
    tensors = _read_without_skip(path, path)
    stored_k = tensors.pop("k", None)
    threshold = tensors.pop("activation_function.threshold", None)
    require_tensors(tensors, {"W_enc", "W_dec", "b_enc", "b_dec"}, str(path))
    k = int(yaml["k"]) if "k" in yaml else None if stored_k is None else int(stored_k)
    topk = yaml.get("activation") == "topk" or (k is not None and "activation" not in yaml)
    n_latents, d_in = tensors["W_dec"].shape
    if threshold is not None:
        threshold = threshold.float().expand(n_latents)
        if bool((threshold < 0).any()):
            raise ScircuitError(
                f"{path} has thresholds below 0, under which negative activations pass; it cannot be read."
            )
    config = SaeConfig(
        "signed_topk" if topk else "standard" if threshold is None else "jumprelu",
        d_in,
        n_latents,
        k=k if topk else None,
        layer=layer,
        model=yaml.get("model_name", ""),
        reads=yaml["feature_input_hook"],
        writes=yaml["feature_output_hook"],
    )
    W_enc = tensors["W_enc"].T
    return build_sae(config, W_enc, tensors["b_enc"], tensors["W_dec"], tensors["b_dec"], None, threshold)


def read_study(folder: Path) -> LinearSAE:
    """The published study's layer folder: `sae_final.pt`, `activation_mean.npy`.

    z = ReLU(TopK(W_enc (h - mean) + b)); the decoder's bias is added to the mean. Its decoder columns are not of unit
    norm. The layer is taken from the folder's name (`layer11_x4_k32`).
    """
    saved = _mapping(_load_pt(folder / "sae_final.pt"), folder / "sae_final.pt", ["model_state_dict", "k"])
    tensors = _mapping(saved["model_state_dict"], folder / "sae_final.pt", [])
    require_tensors(tensors, {"W_enc.weight", "W_enc.bias", "W_dec.weight", "W_dec.bias"}, str(folder / "sae_final.pt"))
    path = folder / "activation_mean.npy"
    mean = _read_npy(path)
    n_latents, d_in = tensors["W_enc.weight"].shape
    named = re.match(r"layer_?(\d+)", folder.name)
    config = SaeConfig("topk", d_in, n_latents, k=int(saved["k"]), layer=int(named[1]) if named else None)
    W_enc, W_dec = tensors["W_enc.weight"].T, tensors["W_dec.weight"].T
    if mean.shape != (d_in,):
        raise ScircuitError(
            f"{path} has {len(mean)} numbers, the SAE beside it reads {d_in}; they do not belong together."
        )
    return build_sae(config, W_enc, tensors["W_enc.bias"], W_dec, tensors["W_dec.bias"], mean)


def _read_npy(path: Path) -> Tensor:
    """The numbers of a numpy file in one row; mapped first, which holds the sizes in its header to its length."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        if array.dtype.kind not in "fiu":
            raise ValueError(f"it holds {array.dtype}, not numbers")
        return torch.from_numpy(np.array(array, dtype=np.float32)).reshape(-1)
    except FileNotFoundError:
        raise ScircuitError(f"{path} does not exist; without the mean the SAE would be read wrongly.") from None
    except Exception as error:  # a damaged header can raise nearly anything
        raise ScircuitError(f"{path} is truncated or no numpy file ({error}); copy it again.") from None


def _read_without_skip(path: Path, source: Path) -> dict[str, Tensor]:
    tensors = read_tensors(path)
    if "W_skip" in tensors:
        raise ScircuitError(f"{source} holds a skip transcoder (W_skip); only dictionaries without one can be read.")
    return tensors


def _mapping(value: Any, source: Path, keys: list[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScircuitError(f"{source} does not hold a mapping; it is of another kind than its name says.")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ScircuitError(f"{source} lacks {', '.join(missing)}; without it the SAE would be read wrongly.")
    return value


def _load_pt(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise ScircuitError(f"{path} does not exist; the SAE folder is incomplete, copy it again.")
    return _mapping(read_pt(path), path, [])


def _flat_yaml(path: Path) -> dict[str, str]:
    """`key: value` lines of a YAML file; deeper structure (lists, blocks) is passed over."""
    if not path.exists():
        raise ScircuitError(f"{path} does not exist; it says what the transcoders beside it read and write.")
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        value = value.split("#", 1)[0]
        if re.fullmatch(r"\w+", key) and value[:1].isspace() and value.strip():
            found[key] = value.strip().strip("'\"")
    return found
