"""`Question`: what a circuit can be asked, with all that is said of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from scircuit.analysis.result import Measure, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAIRS = "Dots: layer pairs, area grows with their edges. Bars: 95% intervals from a bootstrap over sources."
"""Marks of the figures that show a number of all edges above those of each layer pair."""


@dataclass(frozen=True)
class Question:
    """A question that a run, or several, can be asked; a module of this room that holds one offers it.

    `asks`, `title`: the question in words, and the heading of its section.
    `function`: takes what `needs` names in that order, then options by keyword; returns a `Result`. The question is
      called as it is.
    `definition`, `null_model`, `terms`, `glossary`: as in `Result.of`; what depends on the data is told `answer`.
    `needs`: `circuit`, names of `scircuit.circuits.artefacts.TABLES`, or of `scircuit.analysis.given.GIVEN`.
    `figure`: name of a function of `scircuit.report.figures` that draws a result, or a function that draws one on
      axes; by default that of the question's name, or `measures`.
    `marks`: what the figure's marks are.
    `words`: measures in words; others are shown under their own names.
    `edge_columns`: edge columns that the function reads beside the ends, so that no more is loaded.
    `table_columns`: the same for tables of `needs` that are long; of others every column is loaded.
    `by_itself`: whether a finished run asks it by itself; others wait for `scircuit analyze`.
    `redraws`: whether its null redraws every edge, which a run of very many edges does not do by itself.
    `brief`: options with which a run asks it by itself, so that it takes seconds.
    `second`: keyword under which the function takes the circuit of a second run, where it compares two.
    `needs_second`: whether there is no answer without one.
    `matched`: whether it needs to know which latents of the two runs' dictionaries are the same (keyword `matches`).
    `per_cell`: whether it uses the responses that both runs kept cell by cell, where they did (keyword `cells`).
    `of_runs`: whether it is asked of several runs, by `scircuit compare`, and not of one.
    """

    asks: str
    title: str
    function: Callable[..., Result]
    definition: str
    null_model: str = ""
    terms: Sequence[str] = ()
    glossary: str = ""
    needs: tuple[str, ...] = ("circuit",)
    figure: "str | Callable[[Result, Axes], None]" = ""
    marks: str = "Filled: estimates with 95% intervals. Hollow diamonds: their nulls."
    words: Mapping[str, str] = field(default_factory=dict)
    edge_columns: tuple[str, ...] = ()
    table_columns: Mapping[str, list[str]] = field(default_factory=dict)
    by_itself: bool = True
    redraws: bool = False
    brief: Mapping[str, Any] = field(default_factory=dict)
    second: str | None = None
    needs_second: bool = False
    matched: bool = False
    per_cell: bool = False
    of_runs: bool = False

    @property
    def name(self) -> str:
        """What it, and its results, are called."""
        return self.function.__name__

    def answer(
        self,
        measures: Sequence[Measure] | pd.DataFrame,
        table: pd.DataFrame,
        *,
        null_model: str = "",
        terms: Sequence[str] = (),
    ) -> Result:
        """What its function found, with what is said of it."""
        null_model, terms = null_model or self.null_model, terms or self.terms
        return Result.of(self.name, self.definition, measures, table, null_model, terms, self.glossary)
