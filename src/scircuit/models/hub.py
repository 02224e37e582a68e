"""From the name of a known checkpoint to a folder: the user's own, the hub's cache, or a download into it."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from scircuit._io import cache_folder
from scircuit._optional import optional
from scircuit.errors import ScircuitError
from scircuit.models.registry import Checkpoint, RemoteFile, checkpoints, find_checkpoint, list_checkpoints


class Located(NamedTuple):
    """Where a model's files lie; `dictionaries` None where they are beside the weights or not needed."""

    folder: Path
    dictionaries: str | Path | None
    checkpoint: Checkpoint | None = None
    """The published one that was asked for by name."""


def models_folder() -> Path:
    """Where checkpoints may be put by name."""
    return cache_folder() / "models"


def locate(checkpoint: Checkpoint, *, dictionaries: str | Path | None = None, download: bool = True) -> Located:
    """The folder of a known checkpoint.

    Looked for in this order: `models_folder()/NAME`; the cache of huggingface_hub (`HF_HOME`) at the pinned revision;
    a download of the missing files into that cache, unless `HF_HUB_OFFLINE` is set or `download` is false.
    """
    dictionaries = None if dictionaries is None else Path(dictionaries)
    folder = models_folder() / checkpoint.name
    if folder.is_dir():
        return Located(folder, dictionaries, checkpoint)
    if not checkpoint.repo:
        raise ScircuitError(by_hand(checkpoint))
    wanted = checkpoint.needed if dictionaries is None else checkpoint.needed[: len(checkpoint.files)]
    paths = _cached_or_fetched(checkpoint, wanted, download=download)
    if dictionaries is not None or checkpoint.dictionaries is None:
        return Located(paths[0].parent, dictionaries, checkpoint)
    return Located(paths[0].parent, paths[-1].parent, checkpoint)


def fetch_checkpoint(name: str, *, again: bool = False) -> Path:
    """Download a known checkpoint and its dictionaries into the hub's cache; returns the folder of its weights.

    Only the files that the model needs are downloaded, at the pinned revision; each is held to its registered hash.
    `again` downloads even what the cache has, for instance because it was refused.
    """
    from scircuit.models.origin import read_origin

    checkpoint = find_checkpoint(name)
    if not checkpoint.repo:
        raise ScircuitError(by_hand(checkpoint))
    paths = _cached_or_fetched(checkpoint, checkpoint.needed, again=again)
    read_origin(paths, paths[0], checkpoint)
    return paths[0].parent


def missing_files(checkpoint: Checkpoint) -> list[RemoteFile]:
    """The files of a known checkpoint that are on this machine neither by name nor in the hub's cache."""
    folder = models_folder() / checkpoint.name
    if folder.is_dir():
        places = (folder, folder / "geneformer", folder.parent / "geneformer")
        return [f for f in checkpoint.needed if not any((place / f.name).is_file() for place in places)]
    if not checkpoint.repo:
        return list(checkpoint.needed)
    hub = import_hub(checkpoint)
    return [f for f in checkpoint.needed if _in_cache(hub, checkpoint, f) is None]


def list_checkpoints_here() -> pd.DataFrame:
    """Every known checkpoint with where it stands: `name, state, n_parameters, bytes, licence, source`.

    `state` is `here`, `to fetch`, `bring the files` (no hub repository), or `needs scircuit[hub]`.
    """
    table = list_checkpoints()
    table["state"] = [_state(checkpoints()[name]) for name in table["name"]]
    return table[["name", "state", "n_parameters", "bytes", "licence", "source"]]


def show_checkpoint(name: str) -> dict[str, Any]:
    """Everything known about a checkpoint, and which of its files are not on this machine.

    A size or hash that is not known is null: such a file is recorded as it was read and cannot be checked.
    """
    checkpoint = find_checkpoint(name)
    about = {k: v for k, v in asdict(checkpoint).items() if k not in ("files", "dictionaries") and v not in ("", ())}
    state = _state(checkpoint)
    if state != "here":
        about["how"] = f"scircuit models fetch {checkpoint.name}" if checkpoint.repo else by_hand(checkpoint)
    missing = [] if state.startswith("needs") else [f.path for f in missing_files(checkpoint)]
    return {**about, "files": [asdict(f) for f in checkpoint.needed], "state": state, "missing": missing}


def _state(checkpoint: Checkpoint) -> str:
    try:
        missing = missing_files(checkpoint)
    except ScircuitError:
        return "needs scircuit[hub]"
    return "here" if not missing else "to fetch" if checkpoint.repo else "bring the files"


def by_hand(checkpoint: Checkpoint) -> str:
    """How a checkpoint without a hub repository reaches this machine, in a sentence."""
    names = ", ".join(f.name for f in checkpoint.files)
    return (
        f"{checkpoint.title} has no repository on the Hugging Face hub and is not in {models_folder()}; download "
        f"{names} from {checkpoint.address} into {models_folder() / checkpoint.name}, or pass the path of the folder "
        "that holds them instead of the name."
    )


def import_hub(checkpoint: Checkpoint) -> Any:
    """huggingface_hub, or a sentence that says how to install it."""
    otherwise = (
        f"{checkpoint.name} is read from the Hugging Face hub, which needs huggingface_hub: "
        "pip install 'scircuit[hub]', or pass the path of a local folder instead of the name."
    )
    optional("huggingface_hub.constants", otherwise)  # the package loads its submodules lazily, not by this name
    return optional("huggingface_hub", otherwise)


def _cached_or_fetched(
    checkpoint: Checkpoint, wanted: Iterable[RemoteFile], *, download: bool = True, again: bool = False
) -> list[Path]:
    """Paths of the wanted files in the hub's cache, in order."""
    hub = import_hub(checkpoint)
    if again and hub.constants.HF_HUB_OFFLINE:
        raise ScircuitError(f"HF_HUB_OFFLINE is set, so {checkpoint.name} cannot be downloaded again; unset it.")
    out = []
    for file in wanted:
        found = None if again else _in_cache(hub, checkpoint, file)
        if found is None and not (download and not hub.constants.HF_HUB_OFFLINE):
            raise ScircuitError(_not_cached(hub, checkpoint, file))
        out.append(found or _download(hub, checkpoint, file, again=again))
    return out


def _in_cache(hub: Any, checkpoint: Checkpoint, file: RemoteFile) -> Path | None:
    # The cache folder is read at call time, so that a test or a program may move it after the import.
    found = hub.try_to_load_from_cache(
        checkpoint.repo, file.path, cache_dir=hub.constants.HF_HUB_CACHE, revision=checkpoint.revision
    )
    return Path(found) if isinstance(found, str) else None


def _download(hub: Any, checkpoint: Checkpoint, file: RemoteFile, *, again: bool) -> Path:
    try:
        path = hub.hf_hub_download(
            checkpoint.repo, file.path, revision=checkpoint.revision, cache_dir=hub.constants.HF_HUB_CACHE,
            force_download=again,
        )  # fmt: skip
    except Exception as error:  # the client lets errors of its HTTP library through, which differ by version
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ScircuitError(
            f"{file.path} of {checkpoint.repo} could not be downloaded ({reason}); try again with a network, or copy "
            f"{_cache_entry(hub, checkpoint)} from a machine that has it, or pass the path of a local folder."
        ) from None
    return Path(path)


def _not_cached(hub: Any, checkpoint: Checkpoint, file: RemoteFile) -> str:
    why = "HF_HUB_OFFLINE is set: unset it" if hub.constants.HF_HUB_OFFLINE else "nothing is downloaded here"
    return (
        f"{file.path} of {checkpoint.repo} (revision {checkpoint.revision[:12]}) is not in the hub's cache, and {why}, "
        f"run `scircuit models fetch {checkpoint.name}` where there is a network and copy "
        f"{_cache_entry(hub, checkpoint)} here, or pass the path of a local folder."
    )


def _cache_entry(hub: Any, checkpoint: Checkpoint) -> Path:
    return Path(hub.constants.HF_HUB_CACHE) / f"models--{checkpoint.repo.replace('/', '--')}"
