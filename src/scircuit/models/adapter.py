"""`Adapter`: which folders a kind of model is read from, and how."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scircuit.models.base import FoundationModel


@dataclass(frozen=True)
class Adapter:
    """A kind of model that `load_model` reads; a module of this room that holds one offers it."""

    name: str
    """As it is called in sentences."""
    marks: tuple[str, ...]
    """Files by which its folders are known. Of several adapters that know a folder, the one with most marks reads it.
    """
    files: str
    """All that its folder must hold, in words."""
    load: Callable[..., FoundationModel]
    """`(folder, *, protocol, device, dtype, options) -> FoundationModel`, with the arguments of `load_model`."""
    dictionaries: bool = False
    """Whether it also takes `dictionaries`, a folder of token dictionaries apart from the weights."""

    def knows(self, folder: Path) -> bool:
        """Whether the folder holds every mark."""
        return all((folder / mark).is_file() for mark in self.marks)
