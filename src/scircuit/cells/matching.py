"""Which column of an AnnData is which gene of the vocabulary, name by name; refused rather than guessed."""

import logging
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.cells.names import Genes, Name, read_name
from scircuit.cells.vocabulary import Vocabulary
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)

ENOUGH = 0.8
"""Share of what could match below which a match is warned of."""

_COLUMNS = frozenset({
    "ensembl_id", "gene_ids", "gene_id", "feature_id", "ensembl", "ensembl_gene_id", "ensembl_ids", "ensemblid",
    "ensg", "accession", "feature_name", "symbol", "symbols", "gene_symbol", "gene_symbols", "hgnc_symbol", "gene_name",
    "gene_names", "gene_name_index", "gene_short_name", "gene", "genes", "genesymbol", "_index",
})  # fmt: skip
_FEATURE_TYPES = ("feature_types", "feature_type")
_NO_GENES = frozenset({
    "Antibody Capture", "CRISPR Guide Capture", "Multiplexing Capture", "Antigen Capture", "Custom", "Peaks",
})  # fmt: skip


@dataclass(frozen=True)
class GeneMatch:
    """The result of matching."""

    row: np.ndarray
    """int64 `[var]`: row of the vocabulary's gene table for each column of the data, -1 where there is none."""
    is_gene: np.ndarray
    """bool `[var]`: columns that are genes at all: no antibodies, guides, or genes of a mixture's other species."""
    source: str
    """Where the names were found: `index` or a column of `var`."""
    kind: str
    """`ensembl`, `symbol`, or `mixed`."""
    n_genes: int
    """Distinct vocabulary genes found."""
    rate: float
    """`n_genes` over the most that could be found, min(columns that are genes, vocabulary)."""
    table: pd.DataFrame
    """What matched how: `names` (id, symbol, no gene, ...), `taken_off`, `matched`, `columns`, `example`."""

    @property
    def n_summed(self) -> int:
        """Columns beyond the first of a gene; their counts are summed."""
        return int((self.row >= 0).sum()) - self.n_genes

    def projection(self, n_vocabulary: int) -> sparse.csr_matrix:
        """Indicator `[var, vocabulary gene]`; counts times it sums columns that are one gene."""
        columns = np.flatnonzero(self.row >= 0)
        ones = np.ones(len(columns))
        return sparse.csr_matrix(
            (ones, (columns, self.row[columns])), shape=(len(self.row), n_vocabulary), dtype=np.float64
        )

    def describe(self) -> str:
        """One line for the log and for `tokens.json`."""
        matched = self.table[self.table["matched"]]
        by = {"ensembl": "ensembl", "symbol": "symbol"}.get(self.kind)
        if by is None:
            parts = matched.groupby("names")["columns"].sum()
            by = f"their own kind, {parts['id']:,} Ensembl ids and {parts['symbol']:,} symbols"
        line = (
            f"matched {self.n_genes:,} genes of {len(self.row):,} columns by {by} "
            f"({self.source}, {self.rate:.0%} of what could match)"
        )
        off = matched[matched["taken_off"] != ""].groupby("taken_off")["columns"].sum()
        said = [f"taken off: {what} ({n:,})" for what, n in off.items()]
        said += [f"{self.n_summed:,} columns repeat a gene and are summed"] if self.n_summed else []
        said += [f"{n:,} columns are no genes and left out"] if (n := int((~self.is_gene).sum())) else []
        return "; ".join([line, *said])


def match_genes(
    var: pd.DataFrame, vocabulary: Vocabulary, *, gene_column: str | None = None, min_rate: float = 0.2
) -> GeneMatch:
    """Find the vocabulary gene of every column of an AnnData.

    Every name is matched by its own kind, Ensembl id (retired ids followed) or symbol, after `names.read_name` took
    off what files add. The names are those of `gene_column`, or of the index or whichever usual column finds most
    genes (most Ensembl ids on a tie), its blanks filled from the next best.

    Raises
    ------
    ScircuitError
        When fewer than `min_rate` of min(columns, vocabulary) genes are found, or the column is unknown.
    """
    candidates = _candidates(var, gene_column)
    genes = Genes.of(vocabulary.rows_by_ensembl(), vocabulary.rows_by_symbol())
    is_rna = ~_no_genes(var)
    read = {source: _read(names, genes, is_rna) for source, names in candidates.items()}
    order = sorted(read, key=lambda source: read[source].score, reverse=True)
    filled = {first: read[first].filled([read[other] for other in order if other != first]) for first in order}
    best = gene_column or max(order, key=lambda source: filled[source].score)
    match = _match(filled[best], best, is_rna, len(vocabulary.genes))
    if match.n_genes == 0 or match.rate < min_rate:
        raise ScircuitError(_refusal(match, candidates, min_rate))
    log.info(match.describe())
    if match.rate < ENOUGH:
        unmatched = match.table[~match.table["matched"] & ~match.table["names"].isin(("no gene", "other genome"))]
        log.warning(
            "only %.0f%% of the genes that could match did; without a match are such as %s: check gene_column and the "
            "gene annotation of the data", 100 * match.rate, ", ".join(unmatched["example"][:3]) or "none",
        )  # fmt: skip
    return match


@dataclass(frozen=True)
class _Names:
    """The names of one column of `var`, read and looked up."""

    written: np.ndarray
    names: list[Name]
    row: np.ndarray
    off: list[tuple[str, ...]]

    @property
    def score(self) -> tuple[int, int]:
        """Distinct genes, and Ensembl ids among what matched."""
        ids = sum(1 for name, row in zip(self.names, self.row, strict=True) if row >= 0 and name.kind == "id")
        return len(np.unique(self.row[self.row >= 0])), ids

    def filled(self, others: list["_Names"]) -> "_Names":
        """Blank names taken from the first of the others that has one there."""
        written, names, row, off = self.written.copy(), list(self.names), self.row.copy(), list(self.off)
        for i in [i for i, name in enumerate(names) if name.kind == "blank"]:
            for other in others:
                if other.row[i] >= 0:
                    written[i], names[i], row[i] = other.written[i], other.names[i], other.row[i]
                    off[i] = (*other.off[i], "gap filled")
                    break
        return _Names(written, names, row, off)


def _read(written: list[str], genes: Genes, is_rna: np.ndarray) -> _Names:
    names = [read_name(name) if rna else Name("no gene", "") for name, rna in zip(written, is_rna, strict=True)]
    beside = frozenset(name.text for name in names)
    found = [genes.find(name, beside) for name in names]
    row = np.array([row for row, _ in found], dtype=np.int64)
    return _Names(np.array(written, dtype=object), names, row, [off for _, off in found])


def _match(read: _Names, source: str, is_rna: np.ndarray, n_vocabulary: int) -> GeneMatch:
    kinds = [name.kind for name in read.names]
    is_gene = is_rna & np.array([kind != "other genome" for kind in kinds], dtype=bool)
    found = len(np.unique(read.row[read.row >= 0]))
    used = Counter(kind for kind, row in zip(kinds, read.row, strict=True) if row >= 0)
    kind = "mixed" if len(used) > 1 else "symbol" if "symbol" in used else "ensembl"
    how = pd.DataFrame({
        "names": kinds, "taken_off": [", ".join(off) for off in read.off], "matched": read.row >= 0,
        "example": read.written,
    })  # fmt: skip
    table = how.groupby(["names", "taken_off", "matched"], sort=True).agg(
        columns=("example", "size"), example=("example", "first")
    )
    possible = max(min(int(is_gene.sum()), n_vocabulary), 1)
    return GeneMatch(read.row, is_gene, source, kind, found, found / possible, table.reset_index())


def _no_genes(var: pd.DataFrame) -> np.ndarray:
    """Columns that a file's own feature types call something else than expression."""
    for column in _FEATURE_TYPES:
        if column in var:
            return var[column].astype(str).isin(_NO_GENES).to_numpy()
    return np.zeros(len(var), dtype=bool)


def _candidates(var: pd.DataFrame, gene_column: str | None) -> dict[str, list[str]]:
    if gene_column not in (None, "index"):
        if gene_column not in var:
            allowed = ", ".join(["index", *map(str, var.columns)])
            raise ScircuitError(f"var has no column {gene_column!r}; gene_column may be one of: {allowed}.")
        named = {str(gene_column): _texts(var[gene_column])}
        # What was named decides; where it has no name at all, the index may.
        return named | {"index": _texts(var.index)}
    names: dict[str, list[str]] = {"index": _texts(var.index)}
    if gene_column is None:
        names |= {str(c): _texts(var[c]) for c in var if str(c).lower() in _COLUMNS}
    return names


def _texts(names: Any) -> list[str]:
    names = pd.Series(np.asarray(names, dtype=object))
    return names.where(names.notna(), "").astype(str).tolist()


def _refusal(best: GeneMatch, candidates: dict[str, list[str]], min_rate: float) -> str:
    examples = candidates[best.source][:3]
    hint = "pass gene_column= the var column with human Ensembl ids (ENSG...) or HGNC symbols"
    flat: list[Any] = [name for names in candidates.values() for name in names[:2000]]
    foreign = [n for n in flat if re.match(r"^ENS[A-Z]{3,4}G\d+", n)]
    title = [n for n in flat if re.match(r"^[A-Z][a-z]+\d*[a-z]*\d*$", n)]
    if foreign:
        hint = f"ids like {foreign[0]} are of another species; map them to human orthologues first"
    elif len(title) > len(flat) / 4:
        hint = f"symbols like {title[0]} look like mouse; map them to human orthologues first"
    return (
        f"Only {best.n_genes} genes of the model's vocabulary are in the data ({best.rate:.1%}, at least "
        f"{min_rate:.0%} is needed; looked at {', '.join(candidates)}, e.g. {', '.join(examples)}): {hint}."
    )
