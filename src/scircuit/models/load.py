"""`load_model`: the folder of a checkpoint, the name of a published one, or of a model that ships with the package."""

from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.hub import locate
from scircuit.models.plugin import call_loader, is_function
from scircuit.models.registry import Checkpoint, checkpoints, known_checkpoint

PACKAGED = ("geneformer-mini", "scgpt-mini")


class Source(NamedTuple):
    """What a name or path stands for; `checkpoint` where a published one was asked for by name."""

    folder: Path
    dictionaries: str | Path | None
    checkpoint: Checkpoint | None


def load_model(
    source: str | Path,
    *,
    protocol: str = "official",
    dictionaries: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
) -> FoundationModel:
    """Load Geneformer, scGPT, a Hugging Face encoder, or a model of your own.

    Parameters
    ----------
    source
        `geneformer-mini` or `scgpt-mini`; or a folder: Geneformer's `config.json` + `model.safetensors`, or
        scGPT's `args.json` + `vocab.json` + `best_model.pt`, or any transformers encoder's `config.json` +
        `model.safetensors` + `tokens.tsv`; or the name of a published checkpoint (`list_checkpoints()`), which is
        looked for as `models.hub.locate` says and held to its registered hashes; or `FILE.py:FUNCTION` or
        `MODULE:FUNCTION` of your own, called with the other arguments (see docs/adapters.md).
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
    from scircuit.models.geneformer import load_geneformer
    from scircuit.models.hf_encoder import TOKEN_TABLE, load_hf_encoder
    from scircuit.models.scgpt import load_scgpt

    if is_function(source):
        given = {"protocol": protocol, "dictionaries": dictionaries, "device": device, "dtype": dtype}
        return call_loader(str(source), **given, options=options or {})
    folder, dictionaries, checkpoint = find_source(source, dictionaries)
    if (folder / "args.json").is_file() and (folder / "vocab.json").is_file():
        if dictionaries is not None:
            raise ScircuitError("dictionaries= belongs to Geneformer, this folder holds scGPT; leave it out.")
        return load_scgpt(folder, protocol=protocol, device=device, dtype=dtype, options=options, checkpoint=checkpoint)
    if (folder / TOKEN_TABLE).is_file():
        if dictionaries is not None:
            raise ScircuitError(
                f"dictionaries= belongs to Geneformer, this folder has its {TOKEN_TABLE}; leave it out."
            )
        return load_hf_encoder(folder, protocol=protocol, device=device, dtype=dtype, options=options)
    if (folder / "config.json").is_file():
        return load_geneformer(
            folder, protocol=protocol, dictionaries=dictionaries, device=device, dtype=dtype, options=options,
            checkpoint=checkpoint,
        )  # fmt: skip
    found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise ScircuitError(
        f"{folder} holds no known checkpoint (found {found}); Geneformer needs config.json and model.safetensors, "
        "scGPT needs args.json, vocab.json and best_model.pt, any Hugging Face encoder config.json, model.safetensors "
        "and tokens.tsv."
    )


def find_source(source: str | Path, dictionaries: str | Path | None = None, *, download: bool = True) -> Source:
    """The folder behind a name or path: packaged model, local folder, published checkpoint, in that order.

    With `download` false a published checkpoint must be on this machine already.

    Raises
    ------
    ScircuitError
        When there is no such folder or name, or a published checkpoint is not at hand and cannot be downloaded.
    """
    name = str(source)
    if name in PACKAGED:
        return Source(Path(str(files("scircuit") / "data" / name)), dictionaries, None)
    checkpoint = known_checkpoint(name)
    if Path(source).is_dir():
        return Source(Path(source), dictionaries, checkpoint)
    if checkpoint is not None:
        return Source(*locate(checkpoint, dictionaries=dictionaries, download=download), checkpoint)
    raise ScircuitError(
        f"{source} is no folder; pass {' or '.join(PACKAGED)}, the folder of a Geneformer or scGPT checkpoint, or the "
        f"name of a published one: {', '.join(checkpoints())}."
    )
