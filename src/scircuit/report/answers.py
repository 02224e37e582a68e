"""The sections that put a question to the circuit: each shows a `Result` of the analysis, with its null."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from scircuit._tables import iterate, records
from scircuit.analysis.answers import Answer
from scircuit.analysis.question import Question
from scircuit.analysis.registry import questions
from scircuit.analysis.result import Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.report import figures, numbers
from scircuit.report.blocks import FEATURE, Block, Column, Columns, Section, Table, slug, table_of
from scircuit.report.canvas import Where, canvas, inline_svg
from scircuit.report.picture import described
from scircuit.report.reading import notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOP_HUBS = 10
UNANSWERED = "unanswered"
"""Id of the section of the questions that no run answered."""
TOP_PAIRS = 25

BY_CHANCE = Column("by chance", "share of the draws of the null in which the pair is conserved")
OVER_PAIRS = Column("q", "Benjamini-Hochberg over all pairs that could be conserved")
PAIR_COLUMNS: Columns = {
    Column("source label", numeric=False): lambda row: row["source_label"],
    Column("target label", numeric=False): lambda row: row["target_label"],
    Column("models", "models in which an edge connects the two labels"): lambda row: numbers.count(row["n_models"]),
    Column("edges", "in all models together"): lambda row: numbers.count(row["n_edges"]),
    Column("mean |d|"): lambda row: numbers.decimal(row["mean_abs_d"]),
    BY_CHANCE: lambda row: numbers.percent(row["expected"]),
    OVER_PAIRS: lambda row: numbers.probability(row["q_value"]),
}
INTERVAL = Column("95% interval", "by bootstrap; a dash where there is none")
UNDER_NULL = Column("null", "what the estimate would be under the null")


def hub_tables(result: Result, circuit: Circuit) -> list[Table]:
    """The latents with most edges out of them and into them."""
    return [_hub_table(result, described(circuit.nodes), *end) for end in (("out", "Sources"), ("in", "Targets"))]


def _hub_table(result: Result, names: Mapping[tuple[int, int], str], end: str, role: str) -> Table:
    residual = "log(1 + degree) beyond what firing rate and mean activation explain"
    columns: Columns = {
        FEATURE: lambda row: names[row["layer"], row["feature"]],
        Column("degree", f"edges {end} of it, none left out, of the grade that was asked"): lambda row: numbers.count(
            row[f"{end}_degree"]
        ),
        Column("strength", "sum of |d| over these edges"): lambda row: numbers.decimal(row[f"{end}_strength"], 1),
        Column("residual", residual): lambda row: numbers.decimal(row[f"{end}_residual"]),
        Column("firing rate", "firings / gene positions"): lambda row: numbers.percent(row["frequency"]),
    }
    part = result.table[result.table[f"{end}_degree"] > 0]
    top = part.sort_values([f"{end}_degree", f"{end}_strength"], ascending=False, kind="stable").head(TOP_HUBS)
    return table_of(
        columns, records(top), len(part), f"{role} with most edges {end}: {len(top):,} of the {len(part):,} with any"
    )


def conserved_pairs(result: Result) -> list[Table]:
    """Pairs of two different labels that models share."""
    part = result.table[~result.table["is_self"]] if len(result.table) else result.table
    top = part.head(TOP_PAIRS)
    caption = f"Conserved pairs of two different labels: {len(top):,} of {len(part):,}, least likely by chance first"
    return [table_of(PAIR_COLUMNS, records(top), len(part), caption)] if len(top) else []


def control_table(result: Result) -> list[Table]:
    """Every headline in a column per control."""
    known = result.table["number"] != ""
    wide = result.table[known].pivot_table("estimate", "number", "control", aggfunc="first", sort=False)
    names = [name for name in result.table["control"].unique() if name in wide]
    columns: Columns = {
        Column("number", numeric=False): lambda row: row["number"],
        **{Column(name): partial(_significant, name) for name in names},
    }
    ended = [f"{row['control']}: {row['refused']}" for row in records(result.table[~known])]
    caption = "; ".join(["The run beside its controls", *ended])
    return [table_of(columns, records(wide.reset_index()), caption=caption, folded=False)]


def _significant(name: str, row: Mapping[str, Any]) -> str:
    return numbers.significant(row[name])


def answers(runs: Sequence[Artefacts]) -> list[Section]:
    """One section per question that was put to at least one run, answered or refused."""
    asked = [notebook(run) for run in runs]
    pairs = list(zip(runs, asked, strict=True))
    if not any(asked):
        lead = "Numbers of a circuit, each with its null and interval."
        note = "Nothing was asked of this run yet: `scircuit analyze all RUN` does."
        return [Section("answers", "Answers", lead, [Block(run.name, note=note) for run in runs])]
    sections, without = [], []
    for name, question in questions().items():
        found = [(run.name, slug(run.name), known.get(name), run.circuit()) for run, known in pairs]
        if any(answer is not None and answer.result is not None for _, _, answer, _ in found):
            sections.append(question_section(question, found))
        elif any(answer is not None for _, _, answer, _ in found):
            without += [(question, *one) for one in found]
    return [*sections, *_unanswered(without, runs)]


def _unanswered(
    without: Sequence[tuple[Question, str, str, Answer | None, Circuit | None]], runs: Sequence[Artefacts]
) -> list[Section]:
    """One section of the questions that no run answered, with the reasons; none where there is no such question."""
    if not without:
        return []
    columns = [Column("question", numeric=False), Column("why there is no answer", numeric=False)]
    blocks = []
    for run in runs:
        rows = [[q.title, _refusal(answer)] for q, name, _, answer, _ in without if name == run.name]
        blocks.append(Block(run.name, tables=[Table(columns, rows, len(rows))]))
    lead = "These were asked and have no answer, most often because the circuit has no edges of the grade asked for."
    return [Section(UNANSWERED, "Questions without an answer", lead, blocks)]


def _refusal(answer: Answer | None) -> str:
    return f"No answer: {'this run was not asked.' if answer is None else answer.refused}"


def question_section(question: Question, found: Sequence[tuple[str, str, Answer | None, Circuit | None]]) -> Section:
    """A question with its answers: of each, whom it is about, an id of theirs, and the circuit where it is of one."""
    blocks = [_answered(question, *one) for one in found]
    results = (answer.result for _, _, answer, _ in found if answer is not None and answer.result is not None)
    glossary = next((result.glossary for result in results), "")
    return Section(question.name.replace("_", "-"), question.title, question.asks, blocks, glossary)


def _answered(question: Question, name: str, place: str, answer: Answer | None, circuit: Circuit | None) -> Block:
    """One answer: figure, caption with n, null and definition, every number, and more tables where there are any."""
    if answer is None or answer.result is None:
        return Block(name, note=_refusal(answer))
    result, headline = answer.result, answer.result.headline
    caption = (
        f"{question.marks} n = {headline.n:,} {headline.unit_of_n}. Null: {result.null_model}. "
        f"Definition {result.definition}."
    )
    svg = inline_svg(draw(question, result, circuit), f"{place}-{question.name}", f"{question.title}, {name}")
    more = _MORE_TABLES[question.name](result, circuit) if question.name in _MORE_TABLES else []
    return Block(name, svg, caption, tables=[measure_table(result, question.words), *more])


def draw(question: Question, result: Result, circuit: Circuit | None = None, **where: Unpack[Where]) -> "Axes":
    """The figure of an answer."""
    if not isinstance(question.figure, str):
        with canvas(0.7, **where) as ax:
            question.figure(result, ax)
        return ax
    if question.name == "effect_sizes" and circuit is not None:  # shows every edge, which no result holds
        threshold = circuit.provenance.get("thresholds", {}).get("min_abs_d")
        return figures.effect_sizes(circuit.edges, circuit.controls, threshold=threshold, **where)
    return getattr(figures, question.figure or question.name, figures.measures)(result, **where)


_MORE_TABLES: Mapping[str, Callable[[Result, Any], list[Table]]] = {
    "hubs": hub_tables,
    "controls": lambda result, _: control_table(result),
    "consensus": lambda result, _: conserved_pairs(result),
}
"""Tables beside that of the measures, by question."""


def measure_table(result: Result, words: Mapping[str, str]) -> Table:
    """Every number of a result with its interval, null, p and n; `words` say what a measure is."""
    columns: Columns = {
        Column("measure", numeric=False): lambda row: _in_words(row.measure, words),
        Column("estimate"): lambda row: numbers.significant(row.estimate),
        INTERVAL: lambda row: numbers.interval(row.low, row.high),
        UNDER_NULL: lambda row: numbers.significant(row.null),
        Column("p", "against the null"): lambda row: numbers.probability(row.p_value),
        Column("n"): lambda row: f"{row.n:,} {row.unit_of_n}",
    }
    return table_of(columns, iterate(result.measures), folded=False)


def _in_words(measure: str, words: Mapping[str, str]) -> str:
    of_edges = measure.removeprefix("random_")
    if measure != of_edges and of_edges in words:
        return f"{words[of_edges]}, random directions"
    return words.get(measure, measure.replace("_", " "))
