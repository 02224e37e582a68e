"""Figures of a run, with scanpy's habits: `scircuit.pl.NAME(run, ax=None, show=None, save=None)` gives the axes.

Beside the figures here, there is one for every question that can be asked of a run or of several together, under the
question's name (`scircuit.analysis`): `scircuit.pl.sign_balance(run)`, `scircuit.pl.threshold_sweep(run)`. It draws the
run's answer, and asks first where the run was not asked. In a notebook a figure is shown unless `show=False`.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from scircuit.analysis.answers import Answers, read_answers
from scircuit.analysis.layer_pairs import layer_pairs as count_pairs
from scircuit.analysis.question import Question
from scircuit.analysis.registry import analyze, every_question
from scircuit.analysis.result import Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.report import figures
from scircuit.report.answers import draw
from scircuit.report.canvas import Where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Given = str | Path | Artefacts | Circuit | Result
"""What a figure is drawn of: a run or its folder, a circuit, or the result of a question."""


def circuit(
    run: Given, around: str | Sequence[str] | None = None, *, n: int = 100, n_labels: int = 14, **where: Unpack[Where]
) -> "Axes":
    """The strongest `n` edges, layers left to right; `around` a gene, a label, a latent such as `2:17`, or several.

    Raises
    ------
    ScircuitError
        Where nothing of the circuit is called that, or it has no edge.
    """
    found = run if isinstance(run, Circuit) else _run(run).circuit()
    edges = found.edges if around is None else found.around(around)
    if not len(edges):
        of = f"around {around!r}" if around is not None and len(found.edges) else "in this circuit"
        raise ScircuitError(f"There is no edge {of}; a wider one is run.circuit(grade='reproducible').")
    return figures.circuit(edges, found.nodes, n=n, n_labels=n_labels, **_shown(where))


def layer_pairs(run: Given, **where: Unpack[Where]) -> "Axes":
    """Edges per 1,000 tests of every layer pair."""
    found = run if isinstance(run, Circuit) else _run(run).circuit()
    return figures.layer_pairs(count_pairs(found), **_shown(where))


def __getattr__(name: str) -> Callable[..., "Axes"]:
    if name.startswith("_") or name not in every_question():
        raise AttributeError(f"module 'scircuit.pl' has no figure {name!r}; it has {', '.join(__dir__())}")
    return _figure(every_question()[name])


def __dir__() -> list[str]:
    return sorted(["circuit", "layer_pairs", *every_question()])


def _figure(asked: Question) -> Callable[..., "Axes"]:
    """The figure of a question, as a function."""

    def drawn(run: Given, *, grade: str | None = None, **where: Unpack[Where]) -> "Axes":
        result, of = (run, None) if isinstance(run, Result) else _answer(asked, run, grade)
        return draw(asked, result, of, **_shown(where))

    drawn.__name__ = drawn.__qualname__ = asked.name
    drawn.__doc__ = f"{asked.asks}\n\n{asked.marks} Edges are those of `grade`, by default the strictest asked."
    return drawn


def _answer(asked: Question, given: Given, grade: str | None) -> tuple[Result, Circuit | None]:
    """The answer that a run has, or has when it is asked now, and the circuit it is of."""
    run = _run(given)
    kept = None if isinstance(given, Circuit) or grade else _kept(asked.name, run)
    if asked.of_runs:
        if kept is None:
            raise ScircuitError(
                f"{asked.name} is asked of several runs: scircuit compare RUN RUN; give its folder here."
            )
        return kept, None
    return kept or analyze(asked.name, run, grade=grade), run.circuit(grade=grade)


def _kept(name: str, run: Artefacts) -> Result | None:
    for folder in (run.root / "analysis", run.root):
        table = read_answers(folder)
        for answer in Answers(folder, table=table[table["question"] == name]).read():
            if answer.result is not None:
                return answer.result
    return None


def _run(given: Given) -> Artefacts:
    if isinstance(given, Circuit):
        return Artefacts.in_memory(given, name="circuit", model=str(given.provenance.get("model", {}).get("name", "")))
    if isinstance(given, Result):
        raise ScircuitError(f"A result of {given.question} has no edges; give the run or its circuit.")
    return Artefacts.of(given)


def _shown(where: Where) -> Any:
    """Shown by default where someone looks on: in a notebook, unless the axes or a file were asked for."""
    asked = {"ax", "save"} & {name for name, value in where.items() if value is not None}
    return {**where, "show": bool(where.get("show", "ipykernel" in sys.modules and not asked))}
