"""Stage `report`: one page of one run, or of several side by side. No torch."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from scircuit.analysis.answers import Answers
from scircuit.circuits.artefacts import Artefacts
from scircuit.report import write_report
from scircuit.report.planted import planted_section
from scircuit.runs.compare import ask_effect_sizes


def report(runs: Sequence[Artefacts], out: Path, *, recovery: Path | None = None) -> Path:
    """Write `index.html` into `out`; of several runs also how their effect sizes compare, pair by pair.

    `recovery` is the table of what was found of planted circuits, which then has a section of its own.
    """
    first = [] if recovery is None else [planted_section(recovery)]
    if len(runs) < 2:
        return write_report(out, runs, first=first)
    answers = Answers(out)
    for a, b in combinations(runs, 2):
        ask_effect_sizes(answers, a, b)
    answers.write()
    return write_report(out, runs, comparison=out, first=first)
