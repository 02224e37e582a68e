"""The sections that put a question to the circuit: each shows a `Result` of the analysis, with its null."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from scircuit._tables import iterate, records
from scircuit.analysis.effect_comparison import compare_effect_sizes
from scircuit.analysis.registry import QUESTIONS
from scircuit.analysis.result import Result
from scircuit.errors import ScircuitError
from scircuit.report import figures, numbers
from scircuit.report.blocks import Block, Column, Section, Table
from scircuit.report.canvas import inline_svg
from scircuit.report.picture import described
from scircuit.report.runs import RunTables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOP_HUBS = 10

MEASURES = {
    "supporting_share": "supporting share",
    "excess_over_random": "supporting share minus that of random directions",
    "copy_share": "share of the squared response that the residual copy explains",
    "copy_sign_agreement": "edges whose sign is that of the residual copy",
    "supporting_share_of_rest": "supporting share once the residual copy is taken out",
    "mean_abs_d": "mean |d|",
    "share_abs_d_above_1": "edges with |d| above 1",
    "share_abs_d_above_2": "edges with |d| above 2",
    "mean_in_clean_sd": "mean |change| in clean standard deviations of the target",
    "mean_share_lost": "mean share of the target's clean activation lost (supporting edges)",
    "decay_rate": "decay rate per layer",
    "decay_length": "decay length in layers",
    "gini_out": "Gini of out-degrees",
    "gini_in": "Gini of in-degrees",
    "explained_out": "out-degree explained by firing rate and activation (R²)",
    "explained_in": "in-degree explained by firing rate and activation (R²)",
    "tail_exponent": "power-law exponent of the out-degree tail",
    "fold": "coherent edges, observed over expected",
    "coherent_share": "coherent share",
    "best_match_fold": "information content of the best shared set, observed over expected",
    "best_match": "mean information content of the best shared set",
    "auc": "area under the curve of PMI",
    "share_pmi_above_0": "edges with PMI above 0",
    "r_squared": "variance of |d| that both correlations explain (R²)",
    "r_squared_corrected": "the same, corrected for edges being only the large |d|",
    "partial_gene_r": "correlation of |d| with that of the genes, given that of the latents",
    "partial_latent_r": "correlation of |d| with that of the latents, given that of the genes",
    "marginal_gene_r": "correlation of |d| with that of the genes",
    "marginal_latent_r": "correlation of |d| with that of the latents",
    "split_half_jaccard": "edges of two halves of the cells: found in both over found in either (Jaccard)",
    "split_half_r": "edges of two halves of the cells: correlation of d",
    "split_half_sign": "edges of two halves of the cells: share with the same sign",
    "bootstrap_jaccard": "edges of a bootstrap sample and of all cells: Jaccard",
    "bootstrap_r": "edges of a bootstrap sample and of all cells: correlation of d",
    "n_edges": "edges at the thresholds of this run",
    "supporting_share_min": "smallest supporting share at any threshold",
    "supporting_share_max": "largest supporting share at any threshold",
    "replicated_share": "edges found again in at least half of the bootstrap samples",
    "random_supporting_share": "supporting share of random directions",
    "supporting_share_of_copy": "supporting share if the residual copy were all",
    "cells_for_jaccard": "cells until two samples share half of their edges",
    "cells_for_r": "cells until d of two samples correlates at 0.9",
    "in_tail_exponent": "power-law exponent of the in-degree tail",
    "mean_share_carried": "mean share of the response carried by a mediator",
    "norm_ratio_2": "norm ratio of pairs",
    "norm_ratio_3": "norm ratio of triples",
    "confirmed_share": "edges found again",
    "confirmed_share_testable": "edges found again, of those with at least 6 responding cells",
    "sign_agreement": "edges of the same sign in the other cells",
    "r": "correlation of d in both",
    "slope": "winner's-curse slope: d in the other cells over d as found",
    "slope_affine": "the same with an intercept",
    "testable_share": "edges with at least 6 responding cells",
    "share_carried": "share of the response carried by an edge's strongest mediator",
    "joint_share_carried": "share carried by all mediators together",
    "difference": "mean |d|, first minus second",
    "first": "mean |d| of the first",
    "second": "mean |d| of the second",
    "share_compared": "share of the edges that could be compared",
}
"""Measures in words; others are shown under their own name."""

MEASURE_COLUMNS = [
    Column("measure", numeric=False),
    Column("estimate"),
    Column("95% interval", "by bootstrap; a dash where there is none"),
    Column("null", "what the estimate would be under the null"),
    Column("p", "against the null"),
    Column("n"),
]


class Presentation(NamedTuple):
    """How a question stands on the page: its title, its figure, what the marks are, more tables."""

    title: str
    figure: "Callable[[RunTables, Result], Axes]"
    marks: str
    tables: Callable[[RunTables, Result], list[Table]] = lambda run, result: []


def hub_tables(run: RunTables, result: Result) -> list[Table]:
    """The latents with most edges out of them and into them."""
    nodes = {(row["layer"], row["feature"]): row for row in records(run.circuit.nodes)}
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


def min_abs_d(run: RunTables) -> float | None:
    """The smallest |d| that an edge of the run may have, where the rule was recorded."""
    return run.circuit.provenance.get("thresholds", {}).get("min_abs_d")


def _drawn(draw: "Callable[[Result], Axes]") -> "Callable[[RunTables, Result], Axes]":
    return lambda run, result: draw(result)


PAIRS = "Dots: layer pairs, area grows with their edges. Bars: 95% intervals from a bootstrap over sources."

PRESENTATIONS = {
    "sign_balance": Presentation(
        "Sign balance",
        _drawn(figures.sign_balance),
        f"{PAIRS} Hollow diamonds: random directions. Dashed: one half.",
    ),
    "effect_sizes": Presentation(
        "Effect sizes",
        lambda run, result: figures.effect_sizes(run.circuit.edges, run.circuit.controls, threshold=min_abs_d(run)),
        "Share of edges with at least this |d|, on a logarithmic scale; nothing is cut off at the top. Upright line: "
        "the threshold that made a test an edge.",
    ),
    "attenuation": Presentation(
        "Attenuation over depth",
        _drawn(figures.attenuation),
        "Edges per 1,000 tests, one line per source layer. Grey, dashed: random directions.",
    ),
    "hubs": Presentation(
        "Hubs",
        _drawn(figures.hubs),
        "Share of latents with at least so many edges, uncapped, on logarithmic scales.",
        hub_tables,
    ),
    "coherence": Presentation(
        "Coherence",
        _drawn(figures.coherence),
        f"{PAIRS} Dashed, hollow diamonds: a fold of 1, as many shared sets as chance gives.",
    ),
    "coactivation": Presentation(
        "Co-activation", _drawn(figures.coactivation), f"{PAIRS} Dashed: no better than chance."
    ),
    "selection": Presentation(
        "Selection of the sources",
        _drawn(figures.selection),
        "Every mark is a source: its edges per 1,000 tests against its firing rate.",
    ),
    "coexpression": Presentation(
        "Co-expression",
        _drawn(figures.coexpression),
        "Medians and quartiles of |d| over twentieths of the edges, by the size of the correlation.",
    ),
    "replication": Presentation(
        "Replication in other cells",
        _drawn(figures.replication),
        "Every mark is an edge; at most 3,000 are drawn. Dashed: as large as it was found. Solid: the slope. "
        "The frame holds every d of discovery.",
    ),
    "stability": Presentation(
        "Stability over cells",
        _drawn(figures.stability),
        "Filled: two samples without a cell in common, means over draws. Hollow, dotted: one sample against all "
        "cells, which hold it. Grey: Jaccard of edge sets drawn at random.",
    ),
    "group_stability": Presentation(
        "Stability over groups of cells", _drawn(figures.group_stability), "Every mark is a pair of groups."
    ),
    "seed_stability": Presentation(
        "Stability over dictionaries",
        _drawn(figures.seed_stability),
        "Every mark is an edge whose ends both dictionaries know; at most 3,000 are drawn. Dashed: equal d.",
    ),
    "compare_effect_sizes": Presentation(
        "Effect sizes against another run",
        _drawn(figures.compare_effect_sizes),
        "Bars: 95% intervals from a bootstrap over sources.",
    ),
    "threshold_sweep": Presentation(
        "Choice of thresholds",
        _drawn(figures.threshold_sweep),
        "Solid: edges. Dashed: edges of random directions, per direction.",
    ),
    "mediation": Presentation(
        "Mediation", _drawn(figures.mediation), "Cumulative share of (edge, latent held at its clean value) pairs."
    ),
    "interactions": Presentation(
        "Interactions",
        _drawn(figures.interactions),
        "Every mark is a target of a set; on the diagonal the effects add up. At most 3,000 are drawn.",
    ),
    "hierarchy": Presentation(
        "Hierarchy of processes",
        _drawn(figures.hierarchy),
        "Every mark is a label; filled: its depth differs from labels exchanged within layers.",
    ),
    "novelty": Presentation(
        "Novelty", _drawn(figures.shares), "Filled: observed, with 95% intervals. Hollow diamonds: expected."
    ),
    "tissue": Presentation("Cell types and tissues", _drawn(figures.shares), "Share of tests that differ, per term."),
    "disease": Presentation(
        "Disease", _drawn(figures.ratios), "Ratios with 95% intervals; grey: raw. Dashed: 1, no difference."
    ),
}
"""Questions the page knows how to draw, in their order."""


def answers(runs: Sequence[RunTables]) -> list[Section]:
    """One section per question that was put to at least one run, answered or refused."""
    return [
        _section(question, runs)
        for question in PRESENTATIONS
        if any(question in run.results or question in run.refusals for run in runs)
    ]


KNOWLEDGE_ASKS = {
    "hierarchy": "Which processes drive which, in circles or in an order?",
    "novelty": "Do edges go where nothing known links the labels?",
    "tissue": "Which edges differ between cell types or tissues?",
    "disease": "Do latents with disease genes have more edges than others that fire as often?",
}
"""Questions that need more than the run's own tables."""


def _asks(question: str) -> str:
    return KNOWLEDGE_ASKS[question] if question in KNOWLEDGE_ASKS else QUESTIONS[question].asks


def _section(question: str, runs: Sequence[RunTables]) -> Section:
    shown = PRESENTATIONS[question]
    glossary = next((run.results[question].glossary for run in runs if question in run.results), "")
    blocks = []
    for run in runs:
        if question in run.results:
            blocks.append(_block(question, shown, run, run.results[question]))
        else:
            note = run.refusals.get(question, "this run was not asked, or has no edges.")
            blocks.append(Block(run.name, run.slug, note=f"No answer: {note}"))
    return Section(question.replace("_", "-"), shown.title, _asks(question), blocks, glossary)


def between(runs: Sequence[RunTables]) -> list[Section]:
    """Effect sizes of two runs at equal cells, depth and firing rate; nothing for one run, or more than two."""
    if len(runs) != 2 or any(run.circuit.edges.empty for run in runs):
        return []
    first, second = runs
    title, names = "Between the two", f"{first.name} (first) and {second.name} (second)"
    lead = "Are the edges of one model stronger, compared like for like?"
    try:
        result = compare_effect_sizes(first.circuit, second.circuit)
    except ScircuitError as error:
        return [Section("between", title, lead, [Block(names, "both", note=f"No answer: {error}")])]
    shown = Presentation(
        title, _drawn(figures.compare_effect_sizes), "Bars: 95% intervals from a bootstrap over sources."
    )
    return [
        Section("between", title, lead, [_block("between", shown, replace(first, name=names), result)], result.glossary)
    ]


def _block(question: str, shown: Presentation, run: RunTables, result: Result) -> Block:
    headline = result.headline
    caption = (
        f"{shown.marks} n = {headline.n:,} {headline.unit_of_n}. Null: {result.null_model}. "
        f"Definition {result.definition}."
    )
    svg = inline_svg(shown.figure(run, result), f"{run.slug}-{question}", f"{shown.title}, {run.name}")
    return Block(run.name, run.slug, svg, caption, tables=[measure_table(result), *shown.tables(run, result)])


def measure_table(result: Result) -> Table:
    """Every number of a result with its interval, null, p and n."""
    rows = [
        [
            _in_words(row.measure),
            numbers.significant(row.estimate),
            numbers.interval(row.low, row.high),
            numbers.significant(row.null),
            numbers.probability(row.p_value),
            f"{row.n:,} {row.unit_of_n}",
        ]
        for row in iterate(result.measures)
    ]
    return Table(MEASURE_COLUMNS, rows, len(rows))


def _in_words(measure: str) -> str:
    if measure.startswith("random_") and measure.removeprefix("random_") in MEASURES:
        return f"{MEASURES[measure.removeprefix('random_')]}, random directions"
    return MEASURES.get(measure, measure.replace("_", " "))
