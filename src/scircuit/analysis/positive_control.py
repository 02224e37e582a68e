"""Positive control: how large a path must be for this run to find it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scircuit._tables import iterate
from scircuit.analysis.answers import read_answers
from scircuit.analysis.nodes import need_columns
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.grades import SEEN
from scircuit.circuits.schema import ENDS, GRADES
from scircuit.errors import ScircuitError
from scircuit.stats.shares import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 5
"""Paths of one dose below which a share says nothing."""


def positive_control(paths: pd.DataFrame, level: float = 0.8) -> Result:
    """Recall of planted paths by their dose, and the smallest dose from which at least `level` of them are found.

    `smallest_GRADE` (the strictest grade first): the least dose tried from which on, at every larger one too, the share
    reaches the level, NaN where none does; its interval is that of the dose under the two ends of the shares' Wilson
    intervals. `recall_GRADE_DOSE`: the share; null, that of dose 0, where nothing was planted. Table: one row per
    (grade, dose), `n, n_found, recall, low, high, effect_sd` (median size of those found).
    """
    need_columns("positive control", paths, [*ENDS, "dose", "grade", "strictest"], "run `scircuit positive-control`")
    if not 0 < level < 1:
        raise ScircuitError(f"level is {level}; give a share between 0 and 1, for example 0.8.")
    if paths.empty or paths.groupby("dose").size().min() < LEAST:
        raise ScircuitError(
            f"a dose has fewer than {LEAST} planted paths; plant more (`scircuit positive-control RUN --turns N`), or "
            "trace more sources."
        )
    told = GRADES[: GRADES.index(paths["strictest"].iloc[0]) + 1][::-1]
    table = pd.DataFrame([row for grade in told for row in _by_dose(paths, grade)])
    measures = [_smallest(table[table["grade"] == grade], grade, level) for grade in told]
    for grade, rows in table.groupby("grade", sort=False):
        null = rows.loc[rows["dose"] == 0, "recall"]
        beside = float(null.iloc[0]) if len(null) else np.nan
        for row in iterate(rows[rows["dose"] > 0]):
            name = f"recall_{grade}_{row.dose:g}"
            measures.append(Measure(name, row.recall, row.low, row.high, beside, n=row.n, unit_of_n="paths"))
    return QUESTION.answer(measures, table)


def _by_dose(paths: pd.DataFrame, grade: str) -> list[dict[str, object]]:
    rank = {name: place for place, name in enumerate(GRADES)}
    hit = paths["grade"].map(rank).fillna(-1) >= rank[grade]
    rows: list[dict[str, object]] = []
    for dose, mine in hit.groupby(paths["dose"], sort=True):
        n, found = len(mine), int(mine.sum())
        low, high = wilson(found, n)
        sizes = paths.loc[mine.index[mine], "effect_sd"].abs() if "effect_sd" in paths else pd.Series(dtype=float)
        size = float(sizes.median()) if len(sizes) else np.nan
        share = {"recall": found / n, "low": low, "high": high, "effect_sd": size}
        rows.append({"grade": grade, "dose": dose, "n": n, "n_found": found, **share})
    return rows


def _smallest(rows: pd.DataFrame, grade: str, level: float) -> Measure:
    planted = rows[rows["dose"] > 0].sort_values("dose")
    dose = planted["dose"].to_numpy(float)

    def least(column: str) -> float:
        reached = planted[column].to_numpy(float) >= level
        from_here = np.logical_and.accumulate(reached[::-1])[::-1]
        return float(dose[from_here.argmax()]) if from_here.any() else np.nan

    low, high = least("high"), least("low")
    return Measure(f"smallest_{grade}", least("recall"), low, high, n=int(planted["n"].sum()), unit_of_n="paths")


def seen(run: str | Path) -> str:
    """What a run could have seen, as its positive control answered; where it was not run, the command that tells."""
    answers = read_answers(Path(run) / "analysis")
    rows = answers[(answers["question"] == "positive_control") & answers["refused"].isna()]
    told = rows[rows["measure"].str.startswith("smallest_")]
    if told.empty:
        return SEEN
    first, largest = told.iloc[0], rows["measure"].str.extract(r"_([\d.]+)$")[0].astype(float).max()
    grade = first["measure"].removeprefix("smallest_")
    if pd.isna(first["estimate"]):
        return (
            f"The positive control found fewer than 80 % of planted paths as {grade} even at {largest:g} clean SD of "
            "their targets: smaller effects could not have been seen."
        )
    smallest = f"{first['estimate']:g} clean SD of their targets on"
    return f"The positive control found 80 % or more of planted paths as {grade} from {smallest}."


def draw(result: Result, ax: "Axes") -> None:
    """Recall against dose, a line per grade."""
    for grade, rows in result.table.groupby("grade", sort=False):
        error = np.abs(rows[["low", "high"]].to_numpy(float) - rows[["recall"]].to_numpy(float)).T
        ax.errorbar(rows["dose"], rows["recall"], error, marker="o", capsize=2, label=str(grade))
    ax.axhline(0.8, linestyle=":", linewidth=0.8, color="#767676")
    ax.set(xlabel="planted dose (clean SD of the target)", ylabel="share found", ylim=(-0.04, 1.04))
    ax.legend()


QUESTION = Question(
    asks="How small an effect could this run have seen?",
    title="Positive control",
    function=positive_control,
    definition="positive-control/1",
    null_model="pairs drawn alike at which nothing was planted (dose 0)",
    glossary="dose: what the ablation of the source takes from the target along the planted path, on the average over "
    "the source's positions, in SD of the target's activation between cells before the path was planted; the path adds "
    "to that SD, so the size of a found edge is less.",
    needs=("positive_control",),
    figure=draw,
    marks="Share of planted paths found as edges of each grade or a stricter one, with Wilson intervals; dotted: 80 %.",
    words={f"smallest_{grade}": f"smallest dose found as {grade} in 80 % of paths, clean SD" for grade in GRADES},
)
