"""The parts a page is made of: sections, one block per run, tables whose cells are already text."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Column(NamedTuple):
    """A column of a printed table: its title, what its numbers mean, and whether they are numbers."""

    title: str
    definition: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A printed table. `rows` hold text; `total` is the number of rows there would be without a limit."""

    columns: list[Column]
    rows: list[list[str]]
    total: int
    caption: str = ""
    folded: bool = False
    """Closed until the reader opens it."""


@dataclass(frozen=True)
class Block:
    """What one run has to say in a section.

    `figure` is SVG markup of our own making (the one thing on the page that is not escaped); `caption` states n,
    null and definition; `note` stands alone when there is nothing to draw.
    """

    run: str
    slug: str
    figure: str = ""
    caption: str = ""
    note: str = ""
    tables: list[Table] = field(default_factory=list)
    picture: bool = False
    """The block holds the interactive picture; `figure` is what readers without JavaScript see."""


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
