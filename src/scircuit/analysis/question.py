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
    """A question that a run, or several, can be asked; a module of this room that holds one offers it."""

    asks: str
    title: str
    """The question in words, and the heading of its section."""
    function: Callable[..., Result]
    """Takes what `needs` names in that order, then options by keyword; the question is called as it is."""
    definition: str
    null_model: str = ""
    terms: Sequence[str] = ()
    glossary: str = ""
    """As in `Result.of`; what depends on the data is told `answer`."""
    needs: tuple[str, ...] = ("circuit",)
    """`circuit`, names of `scircuit.circuits.artefacts.TABLES`, or of `scircuit.analysis.given.GIVEN`."""
    figure: "str | Callable[[Result, Axes], None]" = ""
    """Name of a function of `scircuit.report.figures` that draws a result, or a function that draws one on axes; by
    default that of the question's name, or `measures`."""
    marks: str = "Filled: estimates with 95% intervals. Hollow diamonds: their nulls."
    """What the figure's marks are."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Measures in words; others are shown under their own names."""
    edge_columns: tuple[str, ...] = ()
    """Edge columns that the function reads beside the ends, so that no more is loaded."""
    table_columns: Mapping[str, list[str]] = field(default_factory=dict)
    """The same for tables of `needs` that are long; of others every column is loaded."""
    by_itself: bool = True
    """Whether a finished run asks it by itself; others wait for `scircuit analyze`."""
    redraws: bool = False
    """Whether its null redraws every edge, which a run of very many edges does not do by itself."""
    brief: Mapping[str, Any] = field(default_factory=dict)
    """Options with which a run asks it by itself, so that it takes seconds."""
    second: str | None = None
    """Keyword under which the function takes the circuit of a second run, where it compares two."""
    needs_second: bool = False
    """Whether there is no answer without one."""
    matched: bool = False
    """Whether it needs to know which latents of the two runs' dictionaries are the same (keyword `matches`)."""
    per_cell: bool = False
    """Whether it uses the responses that both runs kept cell by cell, where they did (keyword `cells`)."""
    of_runs: bool = False
    """Whether it is asked of several runs, by `scircuit compare`, and not of one."""

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
