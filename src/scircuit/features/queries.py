"""Top genes of latents as a sparse matrix, and their random counterparts."""

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit.errors import ScircuitError
from scircuit.knowledge.genes import GeneNames


def query_matrix(features: pd.DataFrame, names: GeneNames) -> sparse.csr_matrix:
    """Indicator int32 `[latent, gene]` of `top_genes` over the background's rows; a gene named twice counts once."""
    length = features["top_genes"].map(len).to_numpy(dtype=np.int64)
    flat = [gene for genes in features["top_genes"] for gene in genes]
    distinct, code = np.unique(np.array(flat, dtype=object).astype(str), return_inverse=True)
    row_of = {name: row for row, name in enumerate(names.genes["symbol"])}
    strange = [name for name in distinct if name not in row_of]
    if strange:
        raise ScircuitError(
            f"The top gene {str(strange[0])!r} is not among the {len(row_of):,} background genes; pass the background "
            "of the same catalogue."
        )
    rows = np.array([row_of[name] for name in distinct], dtype=np.int64)[code] if flat else np.empty(0, np.int64)
    latent = np.repeat(np.arange(len(features)), length)
    matrix = sparse.csr_matrix((np.ones(len(rows), np.int32), (latent, rows)), shape=(len(features), len(row_of)))
    matrix.data[:] = 1
    return matrix


def shuffle_top_genes(features: pd.DataFrame, rng: np.random.Generator, *, passes: int = 100) -> pd.DataFrame:
    """The same table with top genes dealt out anew: query sizes and the frequency of every gene stay as they are.

    Within a layer, the genes of all latents are shuffled; a gene that a latent got twice is exchanged with a random
    place, as long as that helps and at most `passes` times. Genes left twice are kept (they count once).
    """
    out = features.copy()
    for _, index in features.groupby("layer").groups.items():
        lists = features.loc[index, "top_genes"]
        length = lists.map(len).to_numpy(dtype=np.int64)
        owner = np.repeat(np.arange(len(index)), length)
        genes, code = np.unique([g for part in lists for g in part] or [""], return_inverse=True)
        code = rng.permutation(code[: len(owner)])
        for _ in range(passes):
            order = np.lexsort((code, owner))
            same = (np.diff(owner[order]) == 0) & (np.diff(code[order]) == 0)
            twice = order[1:][same]
            if len(twice) == 0:
                break
            # One exchange after the other: two repeated places may draw the same partner.
            for i, j in zip(twice, rng.integers(len(code), size=len(twice)), strict=True):
                code[i], code[j] = code[j], code[i]
        cuts = np.cumsum(length)[:-1]
        dealt = [part.tolist() for part in np.split(genes[code].astype(object), cuts)]
        out.loc[index, "top_genes"] = pd.Series(dealt, index=index, dtype=object)
    return out
