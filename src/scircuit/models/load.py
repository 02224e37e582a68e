"""`load_model`: the folder of a checkpoint, the name of a published one, or of a model that ships with the package."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from scircuit._discover import discover
from scircuit._packaged import PACKAGED, model_folder
from scircuit.errors import ScircuitError
from scircuit.models.adapter import Adapter
from scircuit.models.base import FoundationModel
from scircuit.models.hub import Located, locate
from scircuit.models.plugin import call_loader, is_function
from scircuit.models.registry import checkpoints, known_checkpoint


def load_model(
    source: str | Path,
    *,
    protocol: str = "official",
    dictionaries: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
) -> FoundationModel:
    """Load Geneformer, scGPT, MaxToki, a Hugging Face encoder, or a model of your own.

    Parameters
    ----------
    source
        `geneformer-mini` or `scgpt-mini`; or a folder: Geneformer's `config.json` + `model.safetensors`, or
        scGPT's `args.json` + `vocab.json` + `best_model.pt`, or any transformers encoder's `config.json` +
        `model.safetensors` + `tokens.tsv`; or the name of a published checkpoint (`list_checkpoints()`), which is
        looked for as `models.hub.locate` says and held to its registered hashes; or `FILE.py:FUNCTION` or
        `MODULE:FUNCTION` of your own, run as Python and called with the other arguments (see
        docs/adapters.md).
    protocol
        `official`, or `paper` for the preprocessing of arXiv 2603.01752.
    dictionaries
        Folder with Geneformer's token dictionaries, when they are not beside the checkpoint.
    device, dtype
        `auto`, `cpu`, `cuda`, `mps`, ...; `float32`, `bfloat16` or `float16`.
    options
        Options of the tokenizer (scGPT: `binning`, `seed`).

    Raises
    ------
    ScircuitError
        When the source is neither folder nor name, something in it is missing, damaged or of another model, or a
        published checkpoint cannot be had or is not the registered one.
    """
    if is_function(source):
        given = {"protocol": protocol, "dictionaries": dictionaries, "device": device, "dtype": dtype}
        return call_loader(str(source), **given, options=options or {})
    folder, dictionaries, checkpoint = find_source(source, dictionaries)
    adapter = adapter_of(folder)
    more: dict[str, Any] = {} if checkpoint is None else {"checkpoint": checkpoint}
    if adapter.dictionaries:
        more["dictionaries"] = dictionaries
    elif dictionaries is not None:
        taking = " and ".join(a.name for a in adapters().values() if a.dictionaries)
        raise ScircuitError(f"dictionaries= belongs to {taking}, {folder} holds {adapter.name}; leave it out.")
    return adapter.load(folder, protocol=protocol, device=device, dtype=dtype, options=options, **more)


@cache
def adapters() -> Mapping[str, Adapter]:
    """All that the modules of this room offer, by name."""
    return discover("scircuit.models", Adapter)


def adapter_of(folder: Path) -> Adapter:
    """The adapter that reads a folder."""
    known = [adapter for adapter in adapters().values() if adapter.knows(folder)]
    best = [adapter for adapter in known if adapter.certainty == max(a.certainty for a in known)]
    if len(best) == 1:
        return best[0]
    if best:
        raise ScircuitError(f"{folder} could be {' or '.join(a.name for a in best)}; leave the files of one in it.")
    held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    needed = ", ".join(f"{adapter.name} needs {adapter.files}" for adapter in adapters().values())
    raise ScircuitError(f"{folder} holds no known checkpoint (found {held}); {needed}.")


def find_source(source: str | Path, dictionaries: str | Path | None = None, *, download: bool = True) -> Located:
    """The folder behind a name or path: packaged model, local folder, published checkpoint, in that order.

    With `download` false a published checkpoint must be on this machine already.
    """
    name = str(source)
    if name in PACKAGED:
        return Located(model_folder(name), dictionaries)
    checkpoint = known_checkpoint(name)
    if Path(source).is_dir():
        return Located(Path(source), dictionaries, checkpoint)
    if checkpoint is not None:
        return locate(checkpoint, dictionaries=dictionaries, download=download)
    raise ScircuitError(
        f"{source} is no folder; pass {' or '.join(PACKAGED)}, the folder of a Geneformer or scGPT checkpoint, or the "
        f"name of a published one: {', '.join(checkpoints())}."
    )
