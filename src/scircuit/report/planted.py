"""The section on circuits planted by hand: what the rule finds where every edge is known."""

from pathlib import Path

import pandas as pd

from scircuit._tables import iterate
from scircuit.report import numbers
from scircuit.report.blocks import Block, Column, Columns, Section, table_of

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


def planted_section(path: str | Path) -> Section:
    """The section of a table `grade, n_edges, precision, recall, n_by_decoys`, one row per grade."""
    table = pd.read_parquet(path)
    lead = (
        "A transformer whose drives were set by hand, traced by the rule of the runs below: here it can be seen what a "
        "grade is worth. The worlds of real models are less kind: their latents overlap, and no dictionary holds the "
        "true ones."
    )
    shown = table_of(_COLUMNS, iterate(table), folded=False)
    return Section("planted", "Where every edge is known", lead, [Block("planted circuits", tables=[shown])])
