"""Controls: every headline of a run beside untrained copies of its model, and dictionaries that learnt but half."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scircuit._tables import iterate
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.errors import ScircuitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def controls(table: pd.DataFrame) -> Result:
    """The run's headlines, each beside the nearest of its controls.

    Null: of the controls that have the number, the one nearest to the run's. No p: four controls are no distribution.
    Table: one row per (number, control), `number, control, estimate, low, high, null` (the run's own null of the
    number), `n, unit_of_n, refused`.
    """
    own = table[table["control"] == table["control"].iloc[0]] if len(table) else table
    others = table[~table.index.isin(own.index) & table["estimate"].notna()]
    if others.empty:
        why = ", ".join(sorted({str(reason) for reason in table["refused"].dropna()})) or "none was run"
        raise ScircuitError(f"no control has a number ({why}); run `scircuit controls CONFIG`.")
    measures = []
    for row in iterate(own[own["estimate"].notna()]):
        known = others.loc[others["number"] == row.number, "estimate"].to_numpy(np.float64)
        nearest = float(known[np.abs(known - row.estimate).argmin()]) if len(known) else np.nan
        name = row.number.replace(",", "").replace(" ", "_")
        measures.append(Measure(name, row.estimate, row.low, row.high, nearest, n=int(row.n), unit_of_n=row.unit_of_n))
    return QUESTION.answer(measures, table)


def draw(result: Result, ax: "Axes") -> None:
    """Edges of each grade per thousand tests, run beside controls."""
    rows = result.table[result.table["unit_of_n"] == "tests"]
    names, grades = list(rows["control"].unique()), list(rows["number"].unique())
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        mine = rows[rows["control"] == name]
        y = mine["number"].map(grades.index) + place * width
        ax.barh(y, mine["estimate"], 0.9 * width, label=name, alpha=1.0 if place == 0 else 0.5)
    ax.set_yticks(np.arange(len(grades)) + 0.4 - width / 2, grades)
    ax.invert_yaxis()
    ax.set_xlabel("edges per 1,000 tests")
    ax.legend(fontsize=6)


QUESTION = Question(
    asks="Would an untrained model, or a dictionary that learnt but half, give the same numbers?",
    title="Beside untrained models and frozen dictionaries",
    function=controls,
    definition="controls/1",
    null_model="the control nearest to the run: the same road on the model with redrawn or permuted weights, and "
    "through dictionaries whose decoder or encoder stayed as it was drawn",
    glossary="control: the whole road, cells to analysis, where nothing or only half could be learnt; a number that a "
    "control has too says nothing of what the model learnt.",
    needs=("controls",),
    figure=draw,
    marks="Bars: edges of each grade per thousand tests, the run first.",
)
