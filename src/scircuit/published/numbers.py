"""Our numbers beside the published ones: one row per number and condition, with both definitions. No torch."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit.published.counts import FILE

WHOLE = "study"
"""The scope of a number that belongs to no single condition."""
CORRECTION = "author's correction"
"""The scope of what the author reported later of the method: not of these conditions, but of traces of his own before
and after the hook was mended (Biodyn-AI/maxtoki-mechinterp 1ec98c1, reports V2 and V3, October 2026)."""


@dataclass(frozen=True)
class PublishedNumber:
    """One number of the published study."""

    id: str
    title: str
    source: str
    """Where the values come from."""
    definition: str
    corrected: str
    """What the published number is, and what ours is."""
    unit: str
    """`count`, `number`, `share`, `fold`, `d` or `p`: how it is written."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Value by condition (A, B, T, G) or, under `all`, of the whole study."""
    author: Mapping[str, float] = field(default_factory=dict)
    """What the author reported later: `deployed`, by the hook as it had been, and `mended`."""
    paper: str = ""
    default: str = ""
    """Where ours is found under either definition; empty where there is none."""
    adds_up: bool = False
    """Whether the conditions' values sum to that of the study."""

    @property
    def of_study(self) -> bool:
        """Whether it is one number of the study as a whole."""
        places = [place for place in (self.paper, self.default) if place]
        if not places:
            return set(self.published) <= {"all"}
        return all(":" in place and "CONDITION" not in place for place in places)


@lru_cache(maxsize=1)
def published_numbers() -> tuple[PublishedNumber, ...]:
    """Every number of the packaged table."""
    text = (files("scircuit.published") / "data" / "published.toml").read_text(encoding="utf-8")
    return tuple(PublishedNumber(**row) for row in tomllib.loads(text)["numbers"])


def compare_numbers(root: Path, conditions: Mapping[str, str | None]) -> pd.DataFrame:
    """One row per number and scope (a condition, or the whole study); rows of which nothing is known are left out.

    `root` is the folder of a study, `conditions` its conditions by name and the published one that each repeats.
    Columns: `number, title, scope, published_as` (A, B, T, G or `all`), `published`; `paper, paper_null, paper_p` (ours
    under the published definition); `default, low, high, null, p_value, n, unit_of_n` (ours under the corrected one);
    `unit, definition, corrected, source`. A row of scope `CORRECTION` holds what the author reported later: `published`
    by the deployed hook, `mended` (NaN in every other row) by the mended one.
    """
    rows: list[dict[str, object]] = []
    reader = _Reader(root)
    for number in published_numbers():
        if number.author:
            rows.append(_later(number))
        if number.of_study:
            rows.append(_row(number, WHOLE, "all", reader, ""))
            continue
        rows += [_row(number, c, known or "", reader, f"conditions/{c}") for c, known in conditions.items()]
        if "all" in number.published:
            rows.append(_total(number, rows, len(conditions)))
    table = pd.DataFrame(rows)
    known = table[["published", "mended", "paper", "default"]].notna().any(axis=1)
    return table[known].reset_index(drop=True)


class _Reader:
    """Finds a number by its place; every table is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables: dict[Path, pd.DataFrame | None] = {}

    def table(self, file: Path) -> pd.DataFrame | None:
        if file not in self.tables:
            self.tables[file] = pd.read_parquet(file) if file.is_file() else None
        return self.tables[file]

    def find(self, place: str, profile: str, run: str) -> Mapping[str, object]:
        """The row of a number; empty where it was not computed."""
        if not place:
            return {}
        folder, _, name = place.rpartition(":")
        if not folder and "." not in name:
            table = self.table(self.root / run / FILE)
            return {} if table is None else _first(table[(table["id"] == name) & (table["profile"] == profile)])
        condition = run.rsplit("/", 1)[-1]
        folder = folder.replace("CONDITION", condition) or f"{run}/analysis{'/paper' if profile == 'paper' else ''}"
        name, _, column = name.partition("@")
        question, _, measure = name.partition(".")
        rows = self._answers(folder)
        if rows is None:
            return {}
        found = _first(rows[(rows["question"] == question) & (rows["measure"] == measure)])
        if not found or not column:
            return found
        return {"estimate": found[column], "n": found["n"], "unit_of_n": found["unit_of_n"]}

    def _answers(self, folder: str) -> pd.DataFrame | None:
        """Answers of a folder: of its own table, or the rows that the table above it keeps for it."""
        own = self.table(self.root / folder / "answers.parquet")
        if own is not None:
            return own[own["folder"] == ""] if "folder" in own else own
        above, _, inside = folder.rpartition("/")
        table = self.table(self.root / above / "answers.parquet")
        return None if table is None or "folder" not in table else table[table["folder"] == inside]


def _first(rows: pd.DataFrame) -> Mapping[str, object]:
    return {} if rows.empty else {str(key): value for key, value in rows.iloc[0].items()}


def _row(number: PublishedNumber, scope: str, known_as: str, reader: _Reader, run: str) -> dict[str, object]:
    paper, default = reader.find(number.paper, "paper", run), reader.find(number.default, "default", run)
    about = default or paper
    return {
        "number": number.id,
        "title": number.title,
        "scope": scope,
        "published_as": known_as,
        "published": float(number.published.get(known_as, np.nan)),
        "mended": np.nan,
        "paper": paper.get("estimate", np.nan),
        "paper_null": paper.get("null", np.nan),
        "paper_p": paper.get("p_value", np.nan),
        "default": default.get("estimate", np.nan),
        **{key: default.get(key, np.nan) for key in ("low", "high", "null", "p_value")},
        "n": about.get("n", 0),
        "unit_of_n": about.get("unit_of_n", ""),
        **{key: getattr(number, key) for key in ("unit", "definition", "corrected", "source")},
    }


def _later(number: PublishedNumber) -> dict[str, object]:
    """What the author reported of a number when he corrected the method."""
    said = dict.fromkeys(("paper", "paper_null", "paper_p", "default", "low", "high", "null", "p_value"), np.nan)
    values = {"published": number.author.get("deployed", np.nan), "mended": number.author.get("mended", np.nan)}
    facts = {key: getattr(number, key) for key in ("unit", "definition", "corrected")}
    named = {"number": number.id, "title": number.title, "scope": CORRECTION, "published_as": ""}
    return {**named, **values, **said, "n": 0, "unit_of_n": "", **facts, "source": CORRECTION}


def _total(number: PublishedNumber, rows: list[dict[str, object]], n_conditions: int) -> dict[str, object]:
    """What the published study says of itself as a whole, beside the sum over our conditions where it is one."""
    own = [row for row in rows if row["number"] == number.id and row["scope"] != CORRECTION]
    total: dict[str, object] = {**own[0], "scope": WHOLE, "published_as": "all", "published": number.published["all"]}
    total |= dict.fromkeys(("low", "high", "p_value", "paper_null", "paper_p"), np.nan)
    summed = number.adds_up and len(own) == n_conditions
    for key in ("paper", "default", "null"):
        total[key] = float(np.sum([row[key] for row in own])) if summed else np.nan
    total["n"] = int(np.sum([row["n"] for row in own])) if summed else 0
    return total
