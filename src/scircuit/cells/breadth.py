"""Whether data hold a whole transcriptome or a panel, in words to act on."""

import numpy as np

_PANEL_GENES = 6000
_PANEL_SHARE = 0.3
"""Fewer genes than the smaller of the two: a panel, or a selection of genes."""
_SHALLOW_GENES = 200
_SHALLOW_SHARE = 0.05


def narrowness(n_columns: int, n_vocabulary: int, genes_per_cell: np.ndarray) -> str | None:
    """What is narrow about the data, or None: `n_columns` that are genes, and how many each cell expresses."""
    half = int(np.median(genes_per_cell)) if len(genes_per_cell) else 0
    if n_columns < min(_PANEL_GENES, _PANEL_SHARE * n_vocabulary):
        return (
            f"the data hold {n_columns:,} genes, a panel or a selection of genes, and the model learnt from cells with "
            f"{n_vocabulary:,} to be seen in: genes that were not measured look silent to it, so features and edges "
            "hold for this panel only. If genes were selected, take the matrix with all (often counts='raw'); of a "
            "true panel, compare only with runs on the same panel"
        )
    if half < min(_SHALLOW_GENES, _SHALLOW_SHARE * n_vocabulary):
        return (
            f"half of the cells express at most {half} of the model's genes, so their sequences are far shorter than "
            "those the model learnt from: keep deeper cells (scanpy.pp.filter_cells(adata, min_genes=200)), or read "
            "weak features and missing edges as lack of depth"
        )
    return None
