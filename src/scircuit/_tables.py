"""Tables row by row, typed loosely: their columns are checked where the artefacts are read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import atomic


def iterate(table: pd.DataFrame) -> Iterator[Any]:
    """The rows as tuples with a field per column."""
    return iter(table.itertuples(index=False))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def write_parquet(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table whole or not at all, without its index."""
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)
