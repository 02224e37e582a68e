"""What the modules of a room offer: put a file into the room, and what it holds is found by its name."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, TypeVar

from scircuit.errors import ScircuitError


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


def discover(room: str, kind: type[T]) -> dict[str, T]:
    """Every `kind` at the top level of the room's modules, by its name, the modules in alphabetical order.

    Raises
    ------
    ScircuitError
        When two of them have one name.
    """
    found: dict[str, T] = {}
    for entry in iter_modules(import_module(room).__path__):
        for value in vars(import_module(f"{room}.{entry.name}")).values():
            if isinstance(value, kind) and found.setdefault(value.name, value) is not value:
                raise ScircuitError(
                    f"{room}.{entry.name} offers {value.name!r}, which is there already; give it another name."
                )
    return found
