"""`Expression`: counts of a vocabulary's genes in the cells of any data, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from scircuit.cells.counts import CountSource
from scircuit.cells.files import open_cells
from scircuit.cells.matching import GeneMatch, match_genes
from scircuit.cells.vocabulary import Vocabulary


@dataclass(frozen=True)
class Expression:
    """Where the counts lie, and which of their columns are which gene."""

    source: CountSource
    match: GeneMatch
    n_vocabulary: int

    @classmethod
    def of(
        cls,
        data: Any,
        vocabulary: Vocabulary,
        *,
        counts: str = "X",
        scale: str = "counts",
        counts_kind: str = "whole",
        gene_column: str | None = None,
        min_rate: float = 0.2,
    ) -> "Expression":
        """Open the data (`files.open_cells`) and match its genes.

        Raises
        ------
        ScircuitError
            As `open_cells`, `CountSource` and `match_genes`.
        """
        source = CountSource(open_cells(data), counts, scale, counts_kind)
        match = match_genes(source.var, vocabulary, gene_column=gene_column, min_rate=min_rate)
        return cls(source, match, len(vocabulary.genes))

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, sparse.csr_matrix]]:
        """Yield `(rows, total, counts)`: the sum over all genes of a cell, and CSR `[cell, vocabulary gene]`.

        Columns that are one gene are summed. Antibodies, guides and the other species of a mixture count nowhere.
        """
        projection = self.match.projection(self.n_vocabulary)
        is_gene = self.match.is_gene.astype(np.float64)
        for chosen, block in self.source.blocks(rows):
            mapped = (block @ projection).tocsr()
            mapped.sort_indices()
            yield chosen, block @ is_gene, mapped
