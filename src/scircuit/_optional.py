"""Packages that only some questions need."""

from importlib import import_module
from typing import Any

from scircuit.errors import ScircuitError


def optional(name: str, otherwise: str) -> Any:
    """The package, or the sentence `otherwise`, which says how to get it."""
    try:
        return import_module(name)
    except ImportError:
        raise ScircuitError(otherwise) from None
