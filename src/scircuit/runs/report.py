"""Stage `report`: one page of one run, or of several side by side. No torch."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from scircuit.analysis.answers import Answers
from scircuit.circuits.artefacts import Artefacts
from scircuit.report import write_report
from scircuit.report.planted import planted_section
from scircuit.runs.compare import ask_effect_sizes


def report(runs: Sequence[Artefacts], out: Path, *, recovered: Path | None = None, grade: str | None = None) -> Path:
    """Write `index.html` into `out`; of several runs also how their effect sizes compare, pair by pair.

    `recovered` is the folder of what was found of planted circuits, which then has a section of its own; `grade` as for
    `write_report`.
    """
    first = [] if recovered is None else [planted_section(recovered)]
    if len(runs) < 2:
        return write_report(out, runs, first=first, grade=grade)
    answers = Answers(out)
    for a, b in combinations(runs, 2):
        ask_effect_sizes(answers, a, b)
    answers.write()
    return write_report(out, runs, comparison=out, first=first, grade=grade)
