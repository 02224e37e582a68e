"""`load_model`: a folder of a published checkpoint, or the name of a model that ships with the package."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel

PACKAGED = ("geneformer-mini", "scgpt-mini")


def load_model(
    source: str | Path,
    *,
    protocol: str = "official",
    dictionaries: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
) -> FoundationModel:
    """Load Geneformer or scGPT.

    Parameters
    ----------
    source
        `geneformer-mini` or `scgpt-mini`, or a folder: Geneformer's `config.json` + `model.safetensors`, or
        scGPT's `args.json` + `vocab.json` + `best_model.pt`.
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
        When the folder is neither, or something in it is missing, damaged or of another model.
    """
    from scircuit.models.geneformer import load_geneformer
    from scircuit.models.scgpt import load_scgpt

    folder = Path(str(files("scircuit") / "data" / str(source))) if str(source) in PACKAGED else Path(source)
    if not folder.is_dir():
        raise ScircuitError(
            f"{source} is no folder; pass {' or '.join(PACKAGED)}, or the folder of a Geneformer or scGPT checkpoint."
        )
    if (folder / "args.json").is_file() and (folder / "vocab.json").is_file():
        if dictionaries is not None:
            raise ScircuitError("dictionaries= belongs to Geneformer, this folder holds scGPT; leave it out.")
        return load_scgpt(folder, protocol=protocol, device=device, dtype=dtype, options=options)
    if (folder / "config.json").is_file():
        return load_geneformer(
            folder, protocol=protocol, dictionaries=dictionaries, device=device, dtype=dtype, options=options
        )
    found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise ScircuitError(
        f"{folder} holds no known checkpoint (found {found}); Geneformer needs config.json and model.safetensors, "
        "scGPT needs args.json, vocab.json and best_model.pt."
    )
