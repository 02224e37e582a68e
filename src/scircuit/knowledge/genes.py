"""Gene names: symbols, former symbols and Ensembl ids resolved onto one gene table, never guessed."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit.errors import ScircuitError
from scircuit.knowledge.tables import read_table

log = logging.getLogger(__name__)

# Enrichr's libraries are upper case throughout; open reading frames are the only symbols that are not.
_READING_FRAME = re.compile(r"^C(\d+|X|Y)ORF(\d+)([A-Z]*)$")
_VERSIONED = re.compile(r"^(ENS[A-Z]*G\d+)(\.\d+)?(_PAR_Y)?$")


@dataclass(frozen=True)
class Resolution:
    """Where each name stands in a gene table."""

    row: np.ndarray
    """int64 `[name]`: row of the gene table, -1 where the name is unknown or ambiguous."""
    unknown: tuple[str, ...]
    """Distinct names that are in no column of the table and no alias of it."""
    ambiguous: Mapping[str, tuple[int, ...]]
    """Distinct names that stand for several genes of the table, with those genes' rows; they are not matched."""
    by_alias: Mapping[str, int]
    """Names found through a former or other symbol, with the row."""

    def describe(self) -> str:
        """One line for logs and artefacts."""
        examples = ", ".join(sorted(self.ambiguous)[:3])
        return (
            f"{int((self.row >= 0).sum()):,} of {len(self.row):,} names resolved ({len(self.by_alias):,} through an "
            f"alias), {len(self.unknown):,} unknown, {len(self.ambiguous):,} ambiguous"
            + (f" ({examples})" if examples else "")
        )


@cache
def packaged_aliases() -> pd.DataFrame:
    """Former symbols with today's symbol and Ensembl id (columns `alias`, `symbol`, `ensembl_id`)."""
    with resources.as_file(resources.files("scircuit") / "data" / "gene_aliases.tsv") as path:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def read_hgnc(path: str | Path) -> pd.DataFrame:
    """HGNC's complete set as an alias table: every alias and former symbol of every approved gene.

    A larger and newer table than the packaged one, for `GeneNames(genes, aliases)`.
    """
    columns = ["symbol", "alias_symbol", "prev_symbol", "ensembl_gene_id"]
    table = read_table(path, columns, sep="\t", dtype=str).fillna("")
    rows = [
        (alias, symbol, ensembl)
        for symbol, aliases, former, ensembl in table.itertuples(index=False)
        for alias in dict.fromkeys(f"{aliases}|{former}".split("|"))
        if alias and alias != symbol
    ]
    return pd.DataFrame(rows, columns=["alias", "symbol", "ensembl_id"])


@dataclass(frozen=True)
class GeneNames:
    """A gene table that answers to every name of its genes.

    The order of trust: the table's own symbol (case-sensitive, but `C1ORF43` is `C1orf43`), the Ensembl id (any
    version suffix), then the alias table, which leads from a former symbol to today's and back. A symbol that
    several rows of the table carry, or an alias that leads to several rows, is ambiguous.
    """

    genes: pd.DataFrame
    """Columns `symbol` and `ensembl_id`, empty strings where unknown."""
    aliases: pd.DataFrame = field(default_factory=packaged_aliases)
    """Columns `alias`, `symbol`, `ensembl_id`; the packaged table by default."""
    _rows: Mapping[str, tuple[int, ...]] = field(init=False, repr=False)
    _alias_rows: Mapping[str, tuple[int, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, table, columns in (
            ("gene table", self.genes, ("symbol", "ensembl_id")),
            ("alias table", self.aliases, ("alias", "symbol", "ensembl_id")),
        ):
            missing = [c for c in columns if c not in table]
            if missing:
                raise ScircuitError(f"The {name} has no column {missing[0]!r}; it needs {', '.join(columns)}.")
        rows = _index(self.genes["symbol"])
        ensembl = _index(strip_version(i) for i in self.genes["ensembl_id"])
        rows = {**ensembl, **rows}
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_alias_rows", _alias_index(self.aliases, rows))

    def resolve(self, names: Iterable[str]) -> Resolution:
        """Find each name; repeated names are allowed."""
        names = list(names)
        row = np.full(len(names), -1, dtype=np.int64)
        unknown: dict[str, None] = {}
        ambiguous: dict[str, tuple[int, ...]] = {}
        by_alias: dict[str, int] = {}
        for i, name in enumerate(names):
            spelled = _READING_FRAME.sub(r"C\1orf\2\3", strip_version(name))
            found = self._rows.get(name) or self._rows.get(spelled)
            aliased = found is None
            if aliased:
                found = self._alias_rows.get(name) or self._alias_rows.get(spelled)
            if not found:
                unknown[name] = None
            elif len(found) > 1:
                ambiguous[name] = found
            else:
                row[i] = found[0]
                if aliased:
                    by_alias[name] = found[0]
        return Resolution(row, tuple(unknown), ambiguous, by_alias)


def strip_version(name: str) -> str:
    """`ENSG00000123456.12` to `ENSG00000123456`; any other name as it is."""
    match = _VERSIONED.match(name)
    return match.group(1) if match else name


def _index(names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    rows: dict[str, tuple[int, ...]] = {}
    for row, name in enumerate(names):
        if name:
            rows[name] = (*rows.get(name, ()), row)
    return rows


def _alias_index(aliases: pd.DataFrame, rows: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Both directions: a former symbol to the gene named today, today's symbol to a table with the former."""
    out: dict[str, tuple[int, ...]] = {}
    for alias, symbol, ensembl in aliases[["alias", "symbol", "ensembl_id"]].itertuples(index=False):
        found = rows.get(ensembl) or tuple(sorted({*rows.get(symbol, ()), *rows.get(alias, ())}))
        for name in (alias, symbol):
            if found and name:
                out[name] = tuple(sorted({*out.get(name, ()), *found}))
    return out
