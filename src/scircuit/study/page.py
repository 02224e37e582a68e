"""The report of a study: our numbers beside the published ones, what each stage took, every condition. No torch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import read_json
from scircuit._tables import records, write_parquet
from scircuit.circuits.artefacts import Artefacts
from scircuit.published.numbers import WHOLE, compare_numbers, published_numbers
from scircuit.report import numbers
from scircuit.report.blocks import Block, Column, Columns, Section, Table, table_of
from scircuit.report.page import write_report
from scircuit.study.config import StudyConfig

_TIMES = ("planned_seconds", "seconds", "cpu_seconds")
NUMBERS = "numbers.parquet"


def write_study_report(study: StudyConfig, status: pd.DataFrame) -> Path:
    """Write `report/numbers.parquet` and `report/index.html`, with where each stage stands; returns the page."""
    table = compare_numbers(study.out, {c.name: c.published for c in study.conditions})
    folder = study.out / "report"
    write_parquet(folder / NUMBERS, table)
    first = [numbers_section(table, study), stages_section(status, study)]
    runs = [Artefacts(c.run.out, c.name) for c in study.conditions]
    return write_report(folder, runs, comparison=study.out / "compare", first=first)


def numbers_section(table: pd.DataFrame, study: StudyConfig) -> Section:
    """One row per number and condition: published, ours under the published definition, ours corrected."""
    columns = [
        Column("number", numeric=False),
        Column("condition", numeric=False),
        Column("published", "the published value of the condition that this one repeats"),
        Column("as corrected by its author", "what he reported later of traces of his own, with the hook mended"),
        Column("ours, published definition", "on our trace: |d| > 0.5, the published consistency, top 50, no test"),
        Column("its null", "only where the published study gave one"),
        Column("ours, corrected", "calibrated edges, nothing capped"),
        Column("95% interval", "by bootstrap over sources or labels"),
        Column("null", "what the corrected number would be by chance"),
        Column("p"),
        Column("n"),
    ]
    rows = [_number_row(row) for row in records(table)]
    named = table.drop_duplicates("number")
    words = Table(
        [Column(title, numeric=False) for title in ("number", "published definition", "corrected", "published where")],
        [[row["title"], row["definition"], row["corrected"], row["source"]] for row in records(named)],
        len(named),
        "What each number is",
        folded=True,
    )
    repeated = [c.published for c in study.conditions if c.published]
    lead = (
        "Each number under the definition it was published with and under the corrected one, from the same traces. "
        "Dictionaries' seeds and cells of the published study are not recoverable, so agreement in size is what can be "
        "expected; where the two columns of ours differ, the definition makes the difference, not the cells."
    )
    note = (
        "" if repeated else "No condition of this study repeats a published one; the published column is of the whole."
    )
    block = Block(study.name, note=note, tables=[Table(columns, rows, len(rows)), words])
    return Section("numbers", "Beside the published study", lead, [block])


def _number_row(row: dict[str, Any]) -> list[str]:
    unit = str(row["unit"])
    low, high = _written(row["low"], unit), _written(row["high"], unit)
    scope = "all conditions" if row["scope"] == WHOLE else str(row["scope"])
    alike = f" ({row['published_as']})" if row["published_as"] not in ("", "all") else ""
    return [
        str(row["title"]),
        scope + alike,
        _written(row["published"], unit),
        _written(row["mended"], unit),
        _written(row["paper"], unit),
        _written(row["paper_null"], unit),
        _written(row["default"], unit),
        numbers.MISSING if numbers.MISSING in (low, high) else f"{low} to {high}",
        _written(row["null"], unit),
        numbers.probability(row["p_value"]),
        f"{numbers.count(row['n'])} {row['unit_of_n']}" if row["n"] else numbers.MISSING,
    ]


def _written(value: Any, unit: str) -> str:
    """A number as its unit asks for."""
    if unit == "share":
        return numbers.percent(value)
    if unit == "p":
        return numbers.probability(value)
    if unit == "count" and isinstance(value, int | float) and float(value).is_integer():
        return numbers.count(value)
    return numbers.decimal(value, 2)


def stages_section(table: pd.DataFrame, study: StudyConfig) -> Section:
    """What each stage took beside what `scircuit study plan` had said."""
    processor = "of these, processor time of this process, summed over its threads"
    calls = "more than one: it was interrupted, and measured is what was left for the last"
    columns: Columns = {
        Column("stage", numeric=False): lambda row: row["stage"],
        Column("planned", "seconds, by `scircuit study plan` on the same device"): _seconds("planned_seconds"),
        Column("measured", "seconds of the call that finished it"): _seconds("seconds"),
        Column("processor", processor): _seconds("cpu_seconds"),
        Column("calls", calls): lambda row: str(row["calls"]),
    }
    tables = [table_of(columns, records(table[table["stage"] != "report"]), folded=False), cost_table(study)]
    block = Block("stages", caption=planned_against_measured(table), tables=tables)
    lead = "Every stage of the study, in order; a stage that was done before is not done again."
    return Section("stages", "What it took", lead, [block])


def _seconds(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: numbers.decimal(row[name], 1)


def cost_table(study: StudyConfig) -> Table:
    """Hours and passes of each trace beside the published ones; hours differ from call to call, so they are no row."""
    published = {number.id: number.published for number in published_numbers()}
    ours = "of the trace, over all calls, on this device; random directions included"
    columns: Columns = {
        Column("condition", numeric=False): lambda c: c.name,
        Column("published hours", "on one M2 Max"): lambda c: _written(published["hours"].get(c.published), "number"),
        Column("published passes"): lambda c: _written(published["passes"].get(c.published), "count"),
        Column("our hours", ours): lambda c: numbers.decimal(_hours(Path(c.run.out)), 4),
        Column("our passes", "random directions included"): lambda c: numbers.count(_passes(Path(c.run.out))),
    }
    return table_of(columns, study.conditions, caption="Hours and forward passes of the traces", folded=False)


def _hours(run: Path) -> float | None:
    spent = read_json(run / "seconds.json").get("trace") if (run / "seconds.json").is_file() else None
    return None if spent is None else spent / 3600


def _passes(run: Path) -> int:
    made = read_json(run / "trace" / "trace.json")
    return int(made["n_clean_forwards"] + made["n_ablated_forwards"])


def planned_against_measured(table: pd.DataFrame) -> str:
    """One sentence: the plan's total beside the measured one, over the stages that have both."""
    both = table.dropna(subset=["seconds", "planned_seconds"])
    both = both[both["calls"] == 1]
    if both.empty:
        return "No plan was made before the run (`scircuit study plan`), so there is nothing to compare it with."
    planned, measured, worked = (both[name].sum() for name in ("planned_seconds", "seconds", "cpu_seconds"))
    return (
        f"Planned {planned:,.1f} s, measured {measured:,.1f} s ({worked:,.1f} s of processor time) over {len(both)} "
        f"stages that ran in one call: the plan was {_percent(planned / measured - 1)} "
        f"({_percent(planned / worked - 1)} against processor time, which other users of the machine do not stretch)."
    )


def _percent(error: float) -> str:
    return f"{abs(100 * error):.0f} % too {'high' if error > 0 else 'low'}" if error else "exact"


def lines(table: pd.DataFrame) -> Sequence[str]:
    """`scircuit study status` for the terminal."""
    width = max(len(name) for name in table["stage"])
    out = [f"{'stage':<{width}}  {'state':<8} {'planned s':>10} {'seconds':>10} {'cpu s':>10}"]
    for row in records(table):
        note = f"  ({row['calls']} calls)" if row["calls"] > 1 else ""
        times = " ".join(f"{numbers.decimal(row[name], 1):>10}" for name in _TIMES)
        out.append(f"{row['stage']:<{width}}  {row['state']:<8} {times}{note}")
    done = int((table["state"] == "done").sum())
    return [*out, f"{done} of {len(table)} stages done. {planned_against_measured(table)}"]
