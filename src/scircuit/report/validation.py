"""The section on knock-down screens: every metric beside its baselines, skill in the words of the comparison."""

from collections.abc import Sequence

import pandas as pd

from scircuit._tables import records
from scircuit.analysis.positive_control import seen
from scircuit.circuits.artefacts import Artefacts
from scircuit.report import figures, numbers
from scircuit.report.blocks import Block, Column, Section, Table, slug
from scircuit.report.canvas import inline_svg
from scircuit.report.reading import ScreenTables, screens

METRICS = {
    "direction": "direction",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "auroc_direction": "AUROC, who rises",
    "spearman": "Spearman",
}
_GLOSSARY = (
    "direction: share of the responding genes that go the predicted way, one half for no opinion. AUROC, AUPRC: who "
    "responds at all; AUROC, who rises: among those that respond. Every number is the mean over knock-downs, its "
    "interval a bootstrap over knocked-down genes. The best baseline of each metric is chosen on the same knock-downs, "
    "which favours it."
)


def screen_sections(runs: Sequence[Artefacts]) -> list[Section]:
    """One section with a block per run, screen and definition; nothing without a validation."""
    blocks = [
        _block(run, screen, str(definition), f"{slug(run.name)}-screen-{place}")
        for run in runs
        for place, (screen, definition) in enumerate(
            (screen, definition) for screen in screens(run) for definition in screen.record["definitions"]
        )
    ]
    if not blocks:
        return []
    lead = "Does the circuit predict what a knock-down does, better than what one would say without it?"
    return [Section("screens", "Against knock-down screens", lead, blocks, _GLOSSARY)]


def _block(run: Artefacts, screen: ScreenTables, definition: str, place: str) -> Block:
    summary = screen.summary[screen.summary["definition"] == definition]
    said = screen.record["definitions"][definition]
    title = f"{run.name}, {screen.name}, through {definition}"
    svg = inline_svg(figures.validation(summary), place, title)
    caption = (
        f"Mean over knock-downs with 95% intervals, one row per method; filled: the circuit. n = "
        f"{said['n_knockdowns']:,} knock-downs judged, {said['n_unpredicted']:,} of which the circuit says nothing. "
        "Null: each knock-down judged by another gene's prediction (permuted sources)."
    )
    tables = [_scores(summary, stratum) for stratum in summary["stratum"].unique()]
    tables.append(_in_words(said["sentences"]))
    beside = f" {seen(run.root)}" if said["conclusion"].startswith("No skill") else ""
    return Block(title, svg, caption, note=said["conclusion"] + beside, tables=tables)


def _scores(summary: pd.DataFrame, stratum: str) -> Table:
    part = summary[summary["stratum"] == stratum]
    known = [metric for metric in METRICS if part.loc[part["metric"] == metric, "estimate"].notna().any()]
    rows = []
    for method, own in part.groupby("method", sort=False):
        cells = {row["metric"]: row for row in records(own)}
        rows.append([str(method), *(_with_interval(cells[metric]) for metric in known)])
    columns = [Column("method", numeric=False), *(Column(METRICS[metric]) for metric in known)]
    caption = "All targets" if stratum == "all" else f"{stratum.capitalize()} targets"
    return Table(columns, rows, len(rows), caption)


def _with_interval(row: dict) -> str:
    if pd.isna(row["estimate"]):
        return "–"
    return f"{numbers.decimal(row['estimate'], 3)}\n{numbers.interval(row['low'], row['high'])}"


def _in_words(sentences: Sequence[str]) -> Table:
    rows = [[sentence] for sentence in sentences]
    return Table([Column("what may be said", numeric=False)], rows, len(rows), "In words", folded=True)
