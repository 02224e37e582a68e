"""Tables row by row, typed loosely: their columns are checked where the artefacts are read."""

from collections.abc import Iterator
from typing import Any

import pandas as pd


def iterate(table: pd.DataFrame) -> Iterator[Any]:
    """The rows as tuples with a field per column."""
    return iter(table.itertuples(index=False))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
