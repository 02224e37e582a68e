"""`Question`: what a circuit can be asked, with all that is said of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scircuit.analysis.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAIRS = "Dots: layer pairs, area grows with their edges. Bars: 95% intervals from a bootstrap over sources."
"""Marks of the figures that show a number of all edges above those of each layer pair."""


@dataclass(frozen=True)
class Question:
    """A question that a run, or several, can be asked; a module of this room that holds one offers it.

    Attributes
    ----------
    name : str
        That of its results.
    asks, title : str
        The question in words, and the heading of its section.
    function : callable
        Takes what `needs` names in that order, then options by keyword; returns a `Result`.
    needs : tuple of str
        `circuit`, names of `scircuit.circuits.artefacts.TABLES`, or of `scircuit.analysis.given.GIVEN`.
    figure : str or callable
        Name of a function of `scircuit.report.figures` that draws a result, or a function that draws one on axes.
    marks : str
        What the figure's marks are.
    words : mapping
        Measures in words; others are shown under their own names.
    edge_columns : tuple of str
        Edge columns that the function reads beside the ends, so that no more is loaded.
    table_columns : mapping
        The same for tables of `needs` that are long; of others every column is loaded.
    by_itself : bool
        Whether a finished run asks it by itself; others wait for `scircuit analyze`.
    redraws : bool
        Whether its null redraws every edge, which a run of very many edges does not do by itself.
    brief : mapping
        Options with which a run asks it by itself, so that it takes seconds.
    second : str or None
        Keyword under which the function takes the circuit of a second run, where it compares two.
    needs_second : bool
        Whether there is no answer without one.
    matched : bool
        Whether it needs to know which latents of the two runs' dictionaries are the same (keyword `matches`).
    per_cell : bool
        Whether it uses the responses that both runs kept cell by cell, where they did (keyword `cells`).
    of_runs : bool
        Whether it is asked of several runs, by `scircuit compare`, and not of one.
    """

    name: str
    asks: str
    title: str
    function: Callable[..., Result]
    needs: tuple[str, ...] = ("circuit",)
    figure: "str | Callable[[Result, Axes], None]" = "measures"
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
