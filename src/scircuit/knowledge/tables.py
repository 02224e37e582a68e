"""Reading the tables that databases publish, with errors that name the file and the column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._packed import read_delimited
from scircuit.errors import ScircuitError


def read_table(path: str | Path, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """Read a delimited text file, plain or compressed, and keep `columns`."""
    path = Path(path)
    if not path.is_file():
        raise ScircuitError(f"{path} does not exist; give the path of the downloaded file.")
    table = read_delimited(path, **{"encoding": "utf-8-sig", "low_memory": False, **options})
    missing = [c for c in columns if c not in table]
    if missing:
        found = ", ".join(map(str, table.columns[:8]))
        raise ScircuitError(
            f"{path} has no column {missing[0]!r} (it has {found}); it needs {', '.join(columns)}: is it this database?"
        )
    table = table[list(columns)]
    if table.empty:
        raise ScircuitError(f"{path} has no rows; download it again.")
    return table
