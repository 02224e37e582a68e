"""Sums over sparse pairs (latent, gene), streamed with bounded memory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

_MAX_FILES = 8


class Pairs(NamedTuple):
    """Distinct keys in ascending order, how often each occurred (`n`, int64) and the sum of its values (float64)."""

    key: np.ndarray
    n: np.ndarray
    total: np.ndarray


NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def reduce_pairs(parts: list[Pairs]) -> Pairs:
    """One entry per distinct key, counts and totals added."""
    key = np.concatenate([NO_PAIRS.key, *(p.key for p in parts)])
    if len(key) == 0:
        return NO_PAIRS
    order = np.argsort(key)
    key = key[order]
    first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    count = np.add.reduceat(np.concatenate([p.n for p in parts])[order], first)
    total = np.add.reduceat(np.concatenate([p.total for p in parts])[order], first)
    return Pairs(key[first], count, total)


class PairSums:
    """Counts and sums per int64 key, held as sorted runs.

    Additions wait in a buffer; a full buffer is folded into the run in memory; a run that outgrows
    `max_pairs` moves to a file in `folder`, and full folders are merged. Memory is bounded by both limits while
    adding, and by the number of distinct keys when files are merged or the result is taken; neither memory nor disk
    grows with the number of cells.
    """

    def __init__(self, folder: Path, name: str, *, buffer: int = 1 << 20, max_pairs: int = 1 << 22) -> None:
        self._folder, self._name = folder, name
        self._buffer_size, self._max_pairs = buffer, max_pairs
        self._waiting: list[Pairs] = []
        self._n_waiting = 0
        self._files: list[Path] = []

    def add(self, key: np.ndarray, value: np.ndarray) -> None:
        """Add one occurrence of each key (int64, repeats allowed) with its value."""
        self.add_pairs(Pairs(key, np.ones(len(key), np.int64), value.astype(np.float64)))

    def add_pairs(self, part: Pairs) -> None:
        """Add what is already counted and summed; keys may repeat."""
        self._waiting.append(part)
        self._n_waiting += len(part.key)
        if self._n_waiting > self._buffer_size:
            self._fold()

    def result(self) -> Pairs:
        """Everything added so far."""
        return reduce_pairs([*map(self._load, self._files), *self._waiting])

    def _fold(self) -> None:
        run = reduce_pairs(self._waiting)
        if len(run.key) > self._max_pairs:
            if len(self._files) == _MAX_FILES:
                run = reduce_pairs([run, *map(self._load, self._files)])
                while self._files:
                    self._files.pop().unlink()
            path = self._folder / f"{self._name}_{len(self._files)}.npz"
            np.savez(path, **run._asdict())
            self._files.append(path)
            self._waiting = []
        else:
            self._waiting = [run]
        # Only what comes on top of the run counts towards the next fold.
        self._n_waiting = 0

    @staticmethod
    def _load(path: Path) -> Pairs:
        with np.load(path) as arrays:
            return Pairs(arrays["key"], arrays["n"], arrays["total"])


def top_per_group(group: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:
    """Indices of the `n` largest scores of each group, groups ascending, best first, ties in input order."""
    order = np.lexsort((np.arange(len(group)), -score, group))
    sorted_group = group[order]
    starts = np.flatnonzero(np.r_[True, sorted_group[1:] != sorted_group[:-1]]) if len(group) else np.empty(0, int)
    rank = np.arange(len(group)) - np.repeat(starts, np.diff(np.r_[starts, len(group)]))
    return order[rank < n]
