"""How far the numbers of a trace can be trusted: engine against exact engine, reduced precision against float32."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scircuit.circuits.artefacts import Artefacts
from scircuit.report import numbers
from scircuit.report.blocks import Block, Column, Columns, Section, Table, table_of


def engine_sections(runs: Sequence[Artefacts]) -> list[Section]:
    """The section, where any run recorded an agreement; none otherwise."""
    blocks = [block for run in runs for block in _blocks(run)]
    if not blocks:
        return []
    lead = (
        "The local engine propagates only the positions where a source fires, and reduced precision rounds; both were "
        "compared with the exact engine in float32 on a random sample of sources and cells, before anything else ran."
    )
    return [Section("engine", "Agreement with exact measurement", lead, blocks)]


def _blocks(run: Artefacts) -> list[Block]:
    record = run.circuit().provenance
    blocks = []
    if record.get("fidelity"):
        blocks.append(Block(run.name, caption=_local(run, record), tables=[_table(record["fidelity"]["table"])]))
    report = record.get("precision_report")
    if report:
        caption = (
            f"{report['dtype']} weights{' with TF32 products' if report['tf32'] else ''} against float32: "
            f"n = {numbers.count(report['n_sources'])} sources in {numbers.count(report['n_cells'])} cells. "
            "Null: float32 against itself agrees exactly."
        )
        blocks.append(Block(run.name, caption=caption, tables=[_table(report["table"])]))
    return blocks


def _local(run: Artefacts, record: Mapping[str, Any]) -> str:
    """What the local engine was allowed and did, in words."""
    found, asked = record["fidelity"], record.get("settings") or {}
    floors = f"r {asked.get('min_r', 0.995):g} and same sign {asked.get('min_sign', 0.995):g} at every distance"
    if found["passed"]:
        verdict = f"The floors ({floors}) are met."
    else:
        verdict = f"The floors ({floors}) are NOT met; the approximation was accepted all the same."
    edges = run.circuit().edges
    share = f"{int((edges['engine'] == 'exact').sum()):,} of {len(edges):,} edges" if "engine" in edges else "none"
    again = record.get("n_sources_confirmed", 0)
    return (
        f"Local engine, {found['context_rows']:g} context rows per firing position, against the exact one. {verdict} "
        f"{numbers.count(again)} sources with an edge near a threshold were measured again exactly: {share} are exact."
    )


def _column(name: str, digits: int) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: numbers.decimal(row[name], digits) if digits else numbers.count(row[name])


AGREEMENT: Columns = {
    Column("distance", "target layer − source layer"): _column("distance", 0),
    Column("tests", "effects measured both ways"): _column("n_tests", 0),
    Column("r of d", "correlation of d with the reference's"): _column("r", 4),
    Column("slope", "regression of d on the reference's d; 1 where neither is the larger"): _column("slope", 4),
    Column("same sign", "share of effects whose d has the reference's sign"): _column("sign", 4),
    Column("RMSE of d", "root mean square of the difference in d"): _column("rmse", 4),
    Column("precision", "share of its edges that are the reference's, on the checked cells"): _column("precision", 3),
    Column("recall", "share of the reference's edges that it finds, on the checked cells"): _column("recall", 3),
}


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    return table_of(AGREEMENT, rows, folded=False)
