"""The parts a page is made of: sections, one block per run, tables whose cells are already text."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


def slug(name: str) -> str:
    """A form of a run's name, whatever it holds, that is safe inside an HTML id."""
    return f"run-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class Column(NamedTuple):
    """A column of a printed table: its title, what its numbers mean, and whether they are numbers."""

    title: str
    definition: str = ""
    numeric: bool = True


Columns = Mapping[Column, Callable[[Any], str]]
"""Each column of a table with what it writes of a row."""
FEATURE = Column("feature", "layer · latent, label, top genes", numeric=False)


@dataclass(frozen=True)
class Table:
    """A printed table. `rows` hold text; `total` is the number of rows there would be without a limit."""

    columns: list[Column]
    rows: list[list[str]]
    total: int
    caption: str = ""
    folded: bool = False
    """Closed until the reader opens it."""


def table_of(
    columns: Columns, rows: Iterable[Any], total: int | None = None, caption: str = "",
    *, folded: bool = True,
) -> Table:  # fmt: skip
    """A table of what each column writes of each row; `total` is the number of rows by default."""
    written = [[write(row) for write in columns.values()] for row in rows]
    return Table(list(columns), written, len(written) if total is None else total, caption, folded)


@dataclass(frozen=True)
class Block:
    """What one run has to say in a section.

    `figure` is SVG markup of our own making (the one thing on the page that is not escaped); `caption` states n,
    null and definition; `note` stands alone when there is nothing to draw.
    """

    run: str
    figure: str = ""
    caption: str = ""
    note: str = ""
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A question and its answers, run beside run."""

    id: str
    title: str
    lead: str
    blocks: list[Block]
    glossary: str = ""

    @property
    def definitions(self) -> list[Column]:
        """The columns of the section's tables that need a word, each once."""
        columns = (column for block in self.blocks for table in block.tables for column in table.columns)
        return list({column.title: column for column in columns if column.definition}.values())


@dataclass(frozen=True)
class Fact:
    """One headline number of a run: its value, the n it rests on, what it means."""

    title: str
    value: str
    n: str
    definition: str
