"""The sections that put a question to the circuit: each shows a `Result` of the analysis, with its null."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scircuit._tables import iterate, records
from scircuit.analysis.answers import Answer
from scircuit.analysis.question import Question
from scircuit.analysis.registry import questions
from scircuit.analysis.result import Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.report import figures, numbers
from scircuit.report.blocks import Block, Column, Section, Table, slug
from scircuit.report.canvas import canvas, inline_svg
from scircuit.report.picture import described
from scircuit.report.reading import notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOP_HUBS = 10
TOP_PAIRS = 25

MEASURE_COLUMNS = [
    Column("measure", numeric=False),
    Column("estimate"),
    Column("95% interval", "by bootstrap; a dash where there is none"),
    Column("null", "what the estimate would be under the null"),
    Column("p", "against the null"),
    Column("n"),
]


def hub_tables(result: Result, circuit: Circuit) -> list[Table]:
    """The latents with most edges out of them and into them."""
    nodes = {(row["layer"], row["feature"]): row for row in records(circuit.nodes)}
    tables = []
    for end, role in (("out", "sources"), ("in", "targets")):
        part = result.table[result.table[f"{end}_degree"] > 0]
        top = part.sort_values([f"{end}_degree", f"{end}_strength"], ascending=False, kind="stable").head(TOP_HUBS)
        rows = [
            [
                described(nodes[row["layer"], row["feature"]]),
                numbers.count(row[f"{end}_degree"]),
                numbers.decimal(row[f"{end}_strength"], 1),
                numbers.decimal(row[f"{end}_residual"]),
                numbers.percent(row["frequency"]),
            ]
            for row in records(top)
        ]
        columns = [
            Column("feature", "layer · latent, label, top genes", numeric=False),
            Column("degree", "edges, uncapped"),
            Column("strength", "sum of |d|"),
            Column("residual", "log(1 + degree) beyond what firing rate and mean activation explain"),
            Column("firing rate", "firings / gene positions"),
        ]
        caption = f"{role.capitalize()} with most edges: {len(rows):,} of {len(part):,}"
        tables.append(Table(columns, rows, len(part), caption, folded=True))
    return tables


def conserved_pairs(result: Result) -> list[Table]:
    """Pairs of two different labels that models share."""
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


def answers(runs: Sequence[Artefacts]) -> list[Section]:
    """One section per question that was put to at least one run, answered or refused."""
    asked = [notebook(run) for run in runs]
    if not any(asked):
        lead = "Numbers of a circuit, each with its null and interval."
        note = "Nothing was asked of this run yet: `scircuit analyze all RUN` does."
        return [Section("answers", "Answers", lead, [Block(run.name, note=note) for run in runs])]
    return [
        _section(question, runs, [known.get(name) for known in asked])
        for name, question in questions().items()
        if any(name in known for known in asked)
    ]


def _section(question: Question, runs: Sequence[Artefacts], found: Sequence[Answer | None]) -> Section:
    blocks, glossary = [], ""
    for run, answer in zip(runs, found, strict=True):
        if answer is not None and answer.result is not None:
            glossary = answer.result.glossary
            blocks.append(answered(question, answer.result, run.name, slug(run.name), run.circuit()))
        else:
            why = "this run was not asked." if answer is None else answer.refused
            blocks.append(Block(run.name, note=f"No answer: {why}"))
    return Section(question.name.replace("_", "-"), question.title, question.asks, blocks, glossary)


def answered(question: Question, result: Result, name: str, place: str, circuit: Circuit | None = None) -> Block:
    """One answer: figure, caption with n, null and definition, every number, and more tables where there are any.

    `name` says of whom it is, `place` is unique to them; `circuit` is that of the answer where it is of one run.
    """
    headline = result.headline
    caption = (
        f"{question.marks} n = {headline.n:,} {headline.unit_of_n}. Null: {result.null_model}. "
        f"Definition {result.definition}."
    )
    svg = inline_svg(draw(question, result, circuit), f"{place}-{question.name}", f"{question.title}, {name}")
    more = _MORE_TABLES[question.name](result, circuit) if question.name in _MORE_TABLES else []
    return Block(name, svg, caption, tables=[measure_table(result, question.words), *more])


def draw(question: Question, result: Result, circuit: Circuit | None = None) -> "Axes":
    """The figure of an answer."""
    if not isinstance(question.figure, str):
        with canvas(None, 0.7, None, None) as ax:
            question.figure(result, ax)
        return ax
    if question.figure in _OF_CIRCUIT and circuit is not None:
        return _OF_CIRCUIT[question.figure](circuit)
    return getattr(figures, question.figure)(result)


def _effect_sizes(circuit: Circuit) -> "Axes":
    threshold = circuit.provenance.get("thresholds", {}).get("min_abs_d")
    return figures.effect_sizes(circuit.edges, circuit.controls, threshold=threshold)


_OF_CIRCUIT: Mapping[str, "Callable[[Circuit], Axes]"] = {"effect_sizes": _effect_sizes}
"""Figures that show every edge, which no result holds."""
_MORE_TABLES: Mapping[str, Callable[[Result, Any], list[Table]]] = {
    "hubs": hub_tables,
    "consensus": lambda result, _: conserved_pairs(result),
}
"""Tables beside that of the measures, by question."""


def measure_table(result: Result, words: Mapping[str, str]) -> Table:
    """Every number of a result with its interval, null, p and n; `words` say what a measure is."""
    rows = [
        [
            _in_words(row.measure, words),
            numbers.significant(row.estimate),
            numbers.interval(row.low, row.high),
            numbers.significant(row.null),
            numbers.probability(row.p_value),
            f"{row.n:,} {row.unit_of_n}",
        ]
        for row in iterate(result.measures)
    ]
    return Table(MEASURE_COLUMNS, rows, len(rows))


def _in_words(measure: str, words: Mapping[str, str]) -> str:
    of_edges = measure.removeprefix("random_")
    if measure != of_edges and of_edges in words:
        return f"{words[of_edges]}, random directions"
    return words.get(measure, measure.replace("_", " "))
