"""Which column of an AnnData is which gene of the vocabulary; refused rather than guessed."""

import logging
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.cells.vocabulary import Vocabulary
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)

_COLUMNS = (
    "ensembl_id", "gene_ids", "gene_id", "feature_id", "ensembl", "ensembl_gene_id", "feature_name", "symbol",
    "gene_symbol", "gene_symbols", "gene_name", "gene_names", "gene_name_index", "gene_short_name", "_index",
)  # fmt: skip
_VERSION = re.compile(r"^(ENS[A-Z]*G\d+)\.\d+$")


@dataclass(frozen=True)
class GeneMatch:
    """The result of matching."""

    row: np.ndarray
    """int64 `[var]`: row of the vocabulary's gene table for each column of the data, -1 where there is none."""
    source: str
    """Where the names were found: `index` or a column of `var`."""
    kind: str
    """`ensembl` or `symbol`."""
    n_genes: int
    """Distinct vocabulary genes found."""
    rate: float
    """`n_genes` over the most that could be found, min(columns, vocabulary)."""

    def projection(self, n_vocabulary: int) -> sparse.csr_matrix:
        """Indicator `[var, vocabulary gene]`; counts times it sums columns that are one gene."""
        columns = np.flatnonzero(self.row >= 0)
        ones = np.ones(len(columns))
        return sparse.csr_matrix(
            (ones, (columns, self.row[columns])), shape=(len(self.row), n_vocabulary), dtype=np.float64
        )

    def describe(self) -> str:
        """One line for the log and for `tokens.json`."""
        return (
            f"matched {self.n_genes:,} genes of {len(self.row):,} columns by {self.kind} "
            f"({self.source}, {self.rate:.0%} of what could match)"
        )


def match_genes(
    var: pd.DataFrame, vocabulary: Vocabulary, *, gene_column: str | None = None, min_rate: float = 0.2
) -> GeneMatch:
    """Find the vocabulary gene of every column of an AnnData.

    Ensembl ids (version suffixes stripped, retired ids followed) and symbols (case-sensitive) are tried on
    `gene_column`, or on the index and every usual column; the pair with most genes wins, Ensembl on a tie.

    Raises
    ------
    ScircuitError
        When fewer than `min_rate` of min(columns, vocabulary) genes are found, or the column is unknown.
    """
    candidates = _candidates(var, gene_column)
    ensembl, symbols = vocabulary.rows_by_ensembl(), vocabulary.rows_by_symbol()
    possible = max(min(len(var), len(vocabulary.genes)), 1)
    best: GeneMatch | None = None
    for source, names in candidates.items():
        for kind, known in (("ensembl", ensembl), ("symbol", symbols)):
            keys = [_VERSION.sub(r"\1", name.upper()) for name in names] if kind == "ensembl" else names
            row = np.array([known.get(key, -1) for key in keys], dtype=np.int64)
            found = len(np.unique(row[row >= 0]))
            if best is None or found > best.n_genes:
                best = GeneMatch(row, source, kind, found, found / possible)
    assert best is not None
    if best.n_genes == 0 or best.rate < min_rate:
        raise ScircuitError(_refusal(best, candidates, min_rate))
    log.info(best.describe())
    return best


def _candidates(var: pd.DataFrame, gene_column: str | None) -> dict[str, list[str]]:
    if gene_column not in (None, "index"):
        if gene_column not in var:
            allowed = ", ".join(["index", *map(str, var.columns)])
            raise ScircuitError(f"var has no column {gene_column!r}; gene_column may be one of: {allowed}.")
        return {str(gene_column): var[gene_column].astype(str).tolist()}
    names: dict[str, list[str]] = {"index": var.index.astype(str).tolist()}
    if gene_column is None:
        names |= {c: var[c].astype(str).tolist() for c in _COLUMNS if c in var}
    return names


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
