"""The notebook of answers: what was asked in one folder, answered or refused, and how it is said. No torch.

A run, a comparison of runs and a study each keep one. An answer is a pair of files (`Result.write`); `answers.parquet`
sums them up, one row per number, and is written last. Terminal, report and study read it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit._io import within
from scircuit._lock import locked
from scircuit._tables import read_parquet, records, write_parquet
from scircuit.analysis.result import GLOSSARY, Measure, Result
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)
FILE = "answers.parquet"
_KEY = ["question", "names", "folder"]
_PATIENCE = 60.0
"""Seconds to wait for another process that writes an answer in the same folder."""
COLUMNS = (
    "question", "names", *Measure._fields, "definition", "null_model", "glossary", "run_id", "refused", "folder",
)  # fmt: skip
"""`names`: the runs that an answer is about where it is not about all, joined by ` | `; `folder`: where its files lie
below the notebook's; `refused`: why there is no answer."""


class Answer(NamedTuple):
    """One answer of a notebook: the result, or why there is none."""

    question: str
    names: str
    folder: str
    result: Result | None
    refused: str


class Answers:
    """The answers of one folder; each is written with `facts` (the run's id, its thresholds) beside it.

    With a `table`, that of the folder, it goes on with it, and keeps what others ask there at the same time; without,
    it begins anew.
    """

    def __init__(
        self, folder: str | Path, facts: Mapping[str, Any] | None = None, table: pd.DataFrame | None = None
    ) -> None:
        self.folder = Path(folder)
        self.facts = dict(facts or {})
        self.table = pd.DataFrame(columns=list(COLUMNS)) if table is None else table
        self._goes_on = table is not None
        self._asked: set[tuple[str, str, str]] = set()

    def ask(self, question: str, answer: Callable[[], Result], inside: str = "", names: Sequence[str] = ()) -> None:
        """Ask, and write the answer below the folder; a refusal is recorded with its reason."""
        log.info("%s%s", question, f" of {' and '.join(names)}" if names else "")
        try:
            result = answer()
        except ScircuitError as error:
            self.refuse(question, str(error), inside, names)
        else:
            self.add(result, inside, names)

    def add(self, result: Result, inside: str = "", names: Sequence[str] = ()) -> None:
        """Write an answer below the folder."""
        with locked(self.folder, _PATIENCE):
            result.write(self.folder / inside, self.facts)
        words = {"definition": result.definition, "null_model": result.null_model, "glossary": result.glossary}
        self._put(result.measures.assign(**words, question=result.question, refused=None), inside, names)

    def refuse(self, question: str, why: str, inside: str = "", names: Sequence[str] = ()) -> None:
        """Record that a question has no answer."""
        self._put(pd.DataFrame([Measure("", float("nan"))]).assign(question=question, refused=why), inside, names)

    def _put(self, rows: pd.DataFrame, inside: str, names: Sequence[str]) -> None:
        rows = _whole(rows.assign(names=" | ".join(names), folder=inside, run_id=self.facts.get("run_id")))
        question, who, folder = rows.iloc[0][_KEY]
        self._asked.add((question, who, folder))
        kept = self.table[~_are(self.table, {(question, who, folder)})]
        self.table = pd.concat([kept, rows], ignore_index=True) if len(kept) else rows

    def write(self, order: Sequence[str] = ()) -> pd.DataFrame:
        """Write the summary, the questions of `order` first, the others as they were asked; returns it."""
        place = {name: i for i, name in enumerate(order)}
        with locked(self.folder, _PATIENCE):
            if self._goes_on:
                there = read_answers(self.folder)
                kept, own = there[~_are(there, self._asked)], self.table[_are(self.table, self._asked)]
                self.table = pd.concat([kept, own], ignore_index=True) if len(kept) and len(own) else self.table
            rank = self.table["question"].map(lambda name: place.get(name, len(place)))
            self.table = self.table.iloc[rank.argsort(kind="stable")].reset_index(drop=True)
            write_parquet(self.folder / FILE, self.table)
        return self.table

    def read(self) -> list[Answer]:
        """Every answer with its result, in the order of the summary."""
        found = []
        for row in records(self.table.drop_duplicates(_KEY)):
            refused = row["refused"] if isinstance(row["refused"], str) else ""
            place = within(self.folder, f"{row['folder'] or '.'}/{row['question']}.json")
            found.append(
                Answer(row["question"], row["names"], row["folder"], None if refused else Result.read(place), refused)
            )
        return found


def _are(table: pd.DataFrame, asked: set[tuple[str, str, str]]) -> np.ndarray:
    """Which rows are of the answers with these keys, bool `[row]`."""
    return np.array([key in asked for key in table[_KEY].itertuples(index=False, name=None)], dtype=bool)


def read_answers(folder: str | Path) -> pd.DataFrame:
    """The summary in a folder of answers, with the columns `COLUMNS`; empty where there is none yet."""
    file = Path(folder) / FILE
    if not file.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    return _whole(read_parquet(file))


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """With every column: a run's notebook of 0.1.0 has no names and no folders, a comparison's no words."""
    table = table.reindex(columns=list(COLUMNS))
    words = ["definition", "null_model", "glossary", "run_id", "refused"]
    table[words] = table[words].astype(object).where(table[words].notna(), None)
    return table.assign(names=table["names"].fillna(""), folder=table["folder"].fillna(""))


def headlines(table: pd.DataFrame) -> list[str]:
    """One line per answered question, its first number; then one per reason for which others were not."""
    rows = records(table.drop_duplicates(_KEY))
    refused: dict[str, list[str]] = {}
    for row in rows:
        if isinstance(row["refused"], str):
            refused.setdefault(row["refused"], []).append(_asked(row))
    said = [sentence(row) for row in rows if not isinstance(row["refused"], str)]
    return said + [f"not answered: {', '.join(asked)}; {why}" for why, asked in refused.items()]


def _asked(row: Mapping[str, Any]) -> str:
    """What was asked, and of whom or under which profile."""
    of = f" [{row['names']}]" if row["names"] else ""
    return f"{row['question']}{of}" + (f" ({row['folder']})" if row["folder"] and not of else "")


def sentence(row: Mapping[str, Any]) -> str:
    """One row of an answer in words: estimate with interval, null and p."""
    around = beside(row["low"], row["high"], row["null"], row["p_value"])
    estimate = f"{row['estimate']:.3g}" if pd.notna(row["estimate"]) else "undefined"
    return f"{_asked(row)}: {row['measure']} {estimate}{around}, n = {row['n']:,} {row['unit_of_n']}"


def beside(low: float, high: float, null: float, p_value: float = float("nan")) -> str:
    """Interval, null and p of a number in brackets, as far as it has them."""
    around = [f"{low:.3g} to {high:.3g}"] if pd.notna(low) else []
    around += [f"null {null:.3g}"] if pd.notna(null) else []
    around += [f"p {p_value:.2g}"] if pd.notna(p_value) else []
    return f" ({', '.join(around)})" if around else ""


def glossary(table: pd.DataFrame) -> list[str]:
    """The terms that the answers use, each explained once."""
    known = table["glossary"].dropna().unique()
    terms = [text for text in GLOSSARY.values() if any(text in own for own in known)]
    return terms + [own for own in known if own and not any(text in own for text in terms)]
