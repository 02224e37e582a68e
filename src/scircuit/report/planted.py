"""The section on circuits planted by hand: what the rule finds where every edge is known."""

from pathlib import Path

from scircuit._tables import iterate, read_parquet
from scircuit.circuits.circuit import Circuit
from scircuit.report import figures, numbers
from scircuit.report.blocks import Block, Column, Columns, Section, table_of
from scircuit.report.canvas import inline_svg

RECOVERED = "recovery.parquet"

_COLUMNS: Columns = {
    Column("grade", numeric=False): lambda row: row.grade,
    Column("edges"): lambda row: numbers.count(row.n_edges),
    Column("precision", "share of the edges that were planted"): lambda row: numbers.percent(row.precision),
    Column(
        "recall", "share of the planted pairs with a mean response of 0.3 clean SD or more that are edges"
    ): lambda row: numbers.percent(row.recall),
    Column("by decoys", "edges of held-out decoys, brought to the tests of the latents"): lambda row: numbers.decimal(
        row.n_by_decoys, 1
    ),
}


def planted_section(folder: str | Path) -> Section:
    """The section of a folder with `circuit` and the table `RECOVERED`.

    The table has one row per grade: `grade, n_edges, precision, recall, n_by_decoys`.
    """
    table, circuit = read_parquet(Path(folder) / RECOVERED), Circuit.read(Path(folder) / "circuit")
    lead = (
        "A transformer whose drives were set by hand, traced by the rule of these runs: here it can be seen what a "
        "grade is worth. Real models are less kind: their latents overlap, and no dictionary holds the true ones."
    )
    shown = table_of(_COLUMNS, iterate(table), folded=False)
    svg = inline_svg(figures.circuit(circuit.edges, circuit.nodes), "planted-picture", "Planted circuits, as found")
    caption = (
        f"The strongest of {len(circuit.edges):,} {circuit.widest} edges: how a circuit looks where there is one. "
        "Filled: a source that was ablated. Blue: supporting, the target falls when its source is silenced; orange: "
        "suppressing."
    )
    block = Block("planted circuits", svg, caption, tables=[shown])
    return Section("planted", "Where every edge is known", lead, [block])
