"""`Adapter`: which folders a kind of model is read from, and how."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scircuit._io import read_json
from scircuit.models.base import FoundationModel


@dataclass(frozen=True)
class Adapter:
    """A kind of model that `load_model` reads; a module of this room that holds one offers it."""

    name: str
    """As it is called in sentences."""
    marks: tuple[str, ...]
    """Files by which its folders are known. Of several adapters that know a folder, the one with most marks reads it,
    of equal ones the one that knows its kind.
    """
    files: str
    """All that its folder must hold, in words."""
    load: Callable[..., FoundationModel]
    """`(folder, *, protocol, device, dtype, options) -> FoundationModel`, with the arguments of `load_model`."""
    dictionaries: bool = False
    """Whether it also takes `dictionaries`, a folder of token dictionaries apart from the weights."""

    kinds: tuple[str, ...] = ()
    """Values of `model_type` in config.json by which its folders are known beyond the marks; none for any."""

    def knows(self, folder: Path) -> bool:
        """Whether the folder holds every mark, and is of one of the kinds."""
        if not all((folder / mark).is_file() for mark in self.marks):
            return False
        return not self.kinds or read_json(folder / "config.json").get("model_type") in self.kinds

    @property
    def certainty(self) -> int:
        """How much speaks for it where it knows a folder."""
        return 2 * len(self.marks) + bool(self.kinds)
