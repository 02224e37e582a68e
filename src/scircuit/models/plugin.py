"""Models of the user's own: a function in a file or module that returns a `FoundationModel`."""

import logging
import re
import sys
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel

log = logging.getLogger(__name__)

_FUNCTION = re.compile(r"(?P<where>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")
_MEMBERS = (
    "name", "n_layers", "d_model", "tokenizer", "fingerprint", "genes", "protocol", "device", "dtype", "batches",
    "embed", "layer", "mask", "masked_loss",
)  # fmt: skip


def is_function(source: str | Path) -> bool:
    """Whether a model's source names a function (`adapter.py:load`, `package.module:load`) and not a folder."""
    return _FUNCTION.fullmatch(str(source)) is not None and not Path(source).exists()


def call_loader(source: str, **arguments: Any) -> FoundationModel:
    """Call the function that `source` names, with the arguments of `load_model` as keywords.

    The code of the file or module is run, with all that you may do on this machine; the first call says so.
    """
    match = _FUNCTION.fullmatch(source)
    assert match is not None
    _say(str(Path(match["where"]).resolve()) if match["where"].endswith(".py") else match["where"])
    module = _open(match["where"], source)
    function = getattr(module, match["name"], None)
    if not callable(function):
        raise ScircuitError(f"{match['where']} has no function {match['name']!r}; model.source may name one it has.")
    model = function(**arguments)
    absent = [member for member in _MEMBERS if not hasattr(model, member)]
    if absent or not isinstance(model, FoundationModel):
        raise ScircuitError(
            f"{source} returned a {type(model).__name__} without {', '.join(absent)}; it must return a FoundationModel "
            "(see docs/adapters.md)."
        )
    return model


@cache
def _say(where: str) -> None:
    """Once in a process: what is named as a model is a program."""
    log.warning("%s is run as Python, with your permissions; name only files that you trust", where)


def _open(where: str, source: str) -> ModuleType:
    if not where.endswith(".py"):
        try:
            return import_module(where)
        except ModuleNotFoundError as error:
            raise ScircuitError(f"{source}: {error}; install it, or give the path of a .py file.") from None
    path = Path(where).resolve()
    spec = spec_from_file_location(f"scircuit_adapter_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ScircuitError(f"{source}: there is no file {path}; give the path of the adapter.")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles of its classes look their module up by name
    spec.loader.exec_module(module)
    return module
