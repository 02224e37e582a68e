"""Reading the published token dictionaries, which are pickles, without executing anything."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from scircuit.errors import ScircuitError

# Geneformer's files need no globals at all (V2) or rebuild numpy scalars (V1).
# Both spellings of the module are numpy's: before and after 2.0.
_rebuild_scalar = np.float64(0).__reduce__()[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "scalar"): _rebuild_scalar,
    ("numpy._core.multiarray", "scalar"): _rebuild_scalar,
    ("numpy", "dtype"): np.dtype,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_plain_pickle(path: str | Path) -> dict[str, Any]:
    """Read a pickled dict of plain containers and numpy scalars; numpy scalars become Python numbers.

    Raises
    ------
    ScircuitError
        When the file is missing, truncated, asks for any other class or function, or is no dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ScircuitError(f"The dictionary {path} does not exist; download it beside the checkpoint.")
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file).load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ScircuitError(
            f"{path} is refused as a dictionary: {error}; only pickles of plain containers, strings and "
            "numbers are read, so download the file again from its publisher."
        ) from None
    if not isinstance(content, dict):
        raise ScircuitError(f"{path} holds a {type(content).__name__}, not a dictionary of genes.")
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in content.items()}
