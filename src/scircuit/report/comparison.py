"""The sections of a comparison of runs: what models share, each number beside its null and the published one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scircuit._tables import records
from scircuit.analysis.answers import Answer, Answers, read_answers
from scircuit.analysis.result import Result
from scircuit.errors import ScircuitError
from scircuit.report import figures, numbers
from scircuit.report.answers import measure_table
from scircuit.report.blocks import Block, Column, Section, Table
from scircuit.report.canvas import inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOP_PAIRS = 25
_MEASURES = {
    "fold": "conserved pairs, observed over expected",
    "n_conserved": "conserved pairs of two different labels",
    "edge_fold": "edges on shared pairs, observed over expected",
    "self_fold": "conserved self pairs, observed over expected",
    "n_self_conserved": "conserved self pairs",
    "paper_fold": "conserved pairs over the published null (self pairs included)",
    "paper_n_conserved": "conserved pairs as published",
    "matched_share": "latents of the smaller side that are matched",
    "conserved_fold": "testable edges found in both, observed over expected",
    "conserved_share": "testable edges found in both",
    "same_sign": "of them with the same sign",
    "rank_correlation": "rank correlation of d over them",
    "odds_ratio": "odds ratio of conservation, adjusted for label frequency and degree",
    "raw_odds_ratio": "odds ratio of conservation, raw",
    "disease_label_share": "labels called disease labels",
    "median_edges_ratio": "edges of disease labels over others, medians",
}
"""Names of measures that mean something else elsewhere, or nothing by themselves."""


_OF_ALL = {"": "all runs", "paper": "all runs, published rule"}
"""Whom an answer is about that is not about two runs, by its folder."""


class _Shown(NamedTuple):
    title: str
    lead: str
    marks: str
    figure: "Callable[[Result], Axes]"
    tables: Callable[[Result], list[Table]]


def read_comparison(folder: str | Path) -> list[Answer]:
    """Read the answers that `scircuit compare` wrote."""
    table = read_answers(folder)
    if table.empty:
        raise ScircuitError(f"{folder} has no answers.parquet; give a folder that `scircuit compare` wrote.")
    return Answers(folder, table=table).read()


def comparison_sections(answers: Sequence[Answer]) -> list[Section]:
    """One section per question that was asked, in the order of the page."""
    asked = {question: [a for a in answers if a.question == question] for question in _SHOWN}
    return [_section(question, _SHOWN[question], found) for question, found in asked.items() if found]


def _section(question: str, shown: _Shown, answers: list[Answer]) -> Section:
    blocks = []
    for place, answer in enumerate(answers):
        name = answer.names.replace(" | ", " and ") or _OF_ALL[answer.folder]
        if answer.result is None:
            blocks.append(Block(name, "all", note=f"No answer: {answer.refused}"))
            continue
        result = answer.result
        headline = result.headline
        caption = (
            f"{shown.marks} n = {headline.n:,} {headline.unit_of_n}. Null: {result.null_model}. "
            f"Definition {result.definition}."
        )
        svg = inline_svg(shown.figure(result), f"between-{question}-{place}", f"{shown.title}, {name}")
        tables = [measure_table(_worded(result)), *shown.tables(result)]
        blocks.append(Block(name, "all", svg, caption, tables=tables))
    glossary = next((answer.result.glossary for answer in answers if answer.result is not None), "")
    return Section(question.replace("_", "-"), shown.title, shown.lead, blocks, glossary)


def _worded(result: Result) -> Result:
    """The result with its measures in words that fit a comparison."""
    words = result.measures["measure"].map(lambda name: _MEASURES.get(name, name))
    return replace(result, measures=result.measures.assign(measure=words))


def _no_tables(result: Result) -> list[Table]:
    return []


def _conserved_pairs(result: Result) -> list[Table]:
    part = result.table[~result.table["is_self"]] if len(result.table) else result.table
    rows = [
        [
            row["source_label"],
            row["target_label"],
            numbers.count(row["n_models"]),
            numbers.count(row["n_edges"]),
            numbers.decimal(row["mean_abs_d"]),
            numbers.percent(row["expected"]),
            numbers.probability(row["q_value"]),
        ]
        for row in records(part.head(TOP_PAIRS))
    ]
    columns = [
        Column("source label", numeric=False),
        Column("target label", numeric=False),
        Column("models", "models in which an edge connects the two labels"),
        Column("edges", "in all models together"),
        Column("mean |d|"),
        Column("by chance", "share of the draws of the null in which the pair is conserved"),
        Column("q", "Benjamini-Hochberg over all pairs that could be conserved"),
    ]
    caption = f"Conserved pairs of two different labels: {len(rows):,} of {len(part):,}, least likely by chance first"
    return [Table(columns, rows, len(part), caption, folded=True)] if rows else []


_SHOWN = {
    "consensus": _Shown(
        "Consensus of the models",
        "Do models connect the same labels? Beside it the published null, which calls random targets conserved.",
        "Bars: observed; hollow diamonds: expected under the null of the row.",
        figures.consensus,
        _conserved_pairs,
    ),
    "feature_consensus": _Shown(
        "Consensus without labels",
        "Do latents that stand for the same genes have the same edges?",
        "Every mark is an edge found in both models, d in one against d in the other; at most 3,000 are drawn.",
        figures.feature_consensus,
        _no_tables,
    ),
    "compare_effect_sizes": _Shown(
        "Effect sizes, like for like",
        "Are the edges of one run stronger at equal cells, depth and firing rate?",
        "Bars: 95% intervals from a bootstrap over sources.",
        figures.compare_effect_sizes,
        _no_tables,
    ),
    "disease_conservation": _Shown(
        "Disease between models",
        "Are edges between disease labels conserved more than others of their size? The raw odds ratio grows with the "
        "frequency of labels; the adjusted one holds it fixed.",
        "Ratios with 95% intervals; dashed: 1, no difference.",
        figures.ratios,
        _no_tables,
    ),
    "disease_paper": _Shown(
        "Disease between models, as published",
        "Keyword sets, pooled genes, no correction: shown for comparison only.",
        "Ratios with 95% intervals; dashed: 1, no difference.",
        figures.ratios,
        _no_tables,
    ),
}
