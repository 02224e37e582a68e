"""The sections of a comparison of runs: what models share, each number beside its null and the published one."""

from collections.abc import Sequence
from pathlib import Path

from scircuit.analysis.answers import Answer, Answers, read_answers
from scircuit.analysis.question import Question
from scircuit.analysis.registry import every_question
from scircuit.errors import ScircuitError
from scircuit.published.disease import QUESTION as DISEASE_AS_PUBLISHED
from scircuit.report.answers import question_section
from scircuit.report.blocks import Section

_OF_ALL = {"": "all runs", "paper": "all runs, published rule"}
"""Whom an answer is about that is not about two runs, by its folder."""


def read_comparison(folder: str | Path) -> list[Answer]:
    """Read the answers that `scircuit compare` wrote."""
    table = read_answers(folder)
    if table.empty:
        raise ScircuitError(f"{folder} has no answers.parquet; give a folder that `scircuit compare` wrote.")
    return Answers(folder, table=table).read()


def comparison_sections(answers: Sequence[Answer]) -> list[Section]:
    """One section per question that was asked, in the order of the page."""
    known = [*every_question().values(), DISEASE_AS_PUBLISHED]
    asked = [(question, [a for a in answers if a.question == question.name]) for question in known]
    return [_section(question, found) for question, found in asked if found]


def _section(question: Question, answers: Sequence[Answer]) -> Section:
    names = [answer.names.replace(" | ", " and ") or _OF_ALL[answer.folder] for answer in answers]
    places = [f"between-{i}" for i in range(len(answers))]
    return question_section(question, [(*of, None) for of in zip(names, places, answers, strict=True)])
