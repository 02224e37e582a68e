"""Columns of numbers, and what is said of them, as one text inside the page: compressed, for typed arrays to read."""

import base64
import gzip
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

LONGEST = 30_000_000
"""Rows of a table beyond which a report does not read it."""
_ALIGN = 8
"""Bytes at which every column starts, so that a typed array may lie over it."""
_KEPT_BITS = 15
"""Bits of a number's fraction that travel: more than four digits, and a third less to carry."""


def pack(columns: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    """Columns and JSON-able facts as base64 text; the same give the same bytes.

    Decompressed it is the length of a JSON head (4 bytes, little end first), the head, and the columns, each at a
    multiple of eight bytes: the head holds the facts and, as `columns`, type, first byte and length of each.
    """
    places, parts, at = {}, [], 0
    for name, values in columns.items():
        content = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)).tobytes()
        places[name] = [str(values.dtype), at, len(values)]
        parts.append(content + bytes(-len(content) % _ALIGN))
        at += len(parts[-1])
    head = json.dumps({**facts, "columns": places}, allow_nan=False, separators=(",", ":")).encode()
    head += b" " * (-(len(head) + 4) % _ALIGN)
    whole = struct.pack("<I", len(head)) + head + b"".join(parts)
    return base64.b64encode(gzip.compress(whole, 6, mtime=0)).decode("ascii")


def whole(values: Any) -> np.ndarray:
    """Whole numbers, none below 0, in as few bytes as hold them."""
    found = np.asarray(values, dtype=np.int64)
    most = int(found.max(initial=0))
    return found.astype(np.uint8 if most < 2**8 else np.uint16 if most < 2**16 else np.uint32)


def real(values: Any) -> np.ndarray:
    """Numbers in single precision with the digits that the page shows; what is missing or not finite is NaN."""
    found = np.asarray(values, dtype=np.float32).copy()
    found[~np.isfinite(found)] = np.nan
    half, mask = np.uint32(1 << (22 - _KEPT_BITS)), np.uint32(0xFFFFFFFF << (23 - _KEPT_BITS) & 0xFFFFFFFF)
    rounded = ((found.view(np.uint32) + half) & mask).view(np.float32)
    return np.where(np.isnan(found), np.float32(np.nan), rounded)


def power(values: Any) -> np.ndarray:
    """Probabilities as powers of ten, for they reach below what single precision holds; 0 as the smallest there is."""
    found = np.asarray(values, dtype=np.float64)
    return real(np.log10(np.maximum(found, 1e-300)))


def starts(owner: np.ndarray, n: int) -> np.ndarray:
    """Where the rows of each of `n` owners begin in a table sorted by owner, and where the last end."""
    return whole(np.searchsorted(owner, np.arange(n + 1)))


def rows_among(known: pd.DataFrame, table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Row of `known` that each row of a table is of, by the whole numbers in `columns`; -1 where there is none."""
    if known.empty:
        return np.full(len(table), -1)
    tables = [t[list(columns)].to_numpy(np.int64) for t in (known, table)]
    sizes = tuple(np.maximum(*(t.max(axis=0, initial=0) for t in tables)) + 1)
    held, asked = (np.ravel_multi_index(tuple(t.T), sizes) for t in tables)
    order = np.argsort(held, kind="stable")
    found = order[np.minimum(np.searchsorted(held, asked, sorter=order), len(order) - 1)]
    return np.where(held[found] == asked, found, -1)


def held_by(
    owners: pd.DataFrame, table: pd.DataFrame, columns: Sequence[str], by: str | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of a table that belong to `owners` by `columns`, and where those of each begin (`starts`).

    They stand in the order of the owners, and of one owner by the column `by`.
    """
    row = rows_among(owners, table, columns)
    kept = np.flatnonzero(row >= 0)
    within = kept if by is None else table[by].to_numpy()[kept]
    kept = kept[np.lexsort((within, row[kept]))]
    return table.iloc[kept], starts(row[kept], len(owners))


class Words:
    """Texts, each carried once and named by its place; the empty one stands for none."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {"": 0}

    def places(self, texts: Any) -> np.ndarray:
        """The place of each text; one that is missing has that of the empty one."""
        codes, known = pd.factorize(pd.Series(texts, dtype=object), use_na_sentinel=True)
        found = [self._places.setdefault(str(text), len(self._places)) for text in known]
        return whole(np.array([*found, 0], dtype=np.int64)[codes])

    @property
    def listed(self) -> list[str]:
        """The texts by their places."""
        return list(self._places)
