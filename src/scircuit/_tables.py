"""Tables row by row, typed loosely: their columns are checked where the artefacts are read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import atomic
from scircuit._sealed import check
from scircuit.errors import ScircuitError


def iterate(table: pd.DataFrame) -> Iterator[Any]:
    """The rows as tuples with a field per column."""
    return iter(table.itertuples(index=False))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table of an artefact, held to the record beside it; damage is told in a sentence."""
    try:
        table = pd.read_parquet(path, columns=None if columns is None else list(columns))
    except FileNotFoundError:
        raise ScircuitError(f"{path} does not exist; the folder is incomplete, copy it again.") from None
    except Exception as error:  # pyarrow and pandas raise nearly anything on a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScircuitError(f"{path} is not a readable Parquet file ({reason}); copy it or write it again.") from None
    check(path)
    return table


def write_parquet(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table whole or not at all, without its index."""
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all; texts that a spreadsheet would run as formulas get an apostrophe."""
    plain = table.rename(columns=_as_text)
    for name in plain.columns:
        if not pd.api.types.is_numeric_dtype(plain[name].dtype):
            plain[name] = plain[name].map(_as_text)
    with atomic(path) as temporary:
        plain.to_csv(temporary, index=False)


def _as_text(value: Any) -> Any:
    """A cell that is only read; a carriage return, which ends a row without being quoted, becomes a blank."""
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(_FORMULA) else "") + value.replace("\r", " ")
