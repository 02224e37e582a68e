"""What ships inside the package for a first run without a download: two small models, each with its dictionaries."""

from importlib.resources import files
from pathlib import Path

PACKAGED = ("geneformer-mini", "scgpt-mini")


def model_folder(source: str | Path) -> Path:
    """The folder of a model: of a packaged one by its name, of any other the path itself."""
    return _data(str(source)) if str(source) in PACKAGED else Path(source)


def sae_folder(source: str | Path) -> Path:
    """The folder of dictionaries: of a packaged model by its name, of any other the path itself."""
    return _data(str(source)) / "saes" if str(source) in PACKAGED else Path(source)


def _data(name: str) -> Path:
    return Path(str(files("scircuit") / "data" / name))
