"""In which cells a latent is most active, and which kinds of cells those are."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit.errors import ScircuitError
from scircuit.features.accumulate import top_per_group
from scircuit.features.hypergeometric import overlap_p
from scircuit.stats.multiple import benjamini_hochberg

TOP_SHARE = 0.05
MIN_QUERY = 10


class CellProfile:
    """How many cells of each category went through the model."""

    def __init__(self, obs: pd.DataFrame | None) -> None:
        self.n_cells = 0
        self.columns: dict[str, Categories] = {}
        for name, column in [] if obs is None else obs.items():
            if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
                raise ScircuitError(
                    f"The obs column {name!r} is numeric; over-representation needs categories, so leave it out or "
                    "bin it first (pandas.cut)."
                )
            category = column.astype("category")
            codes = category.cat.codes.to_numpy(dtype=np.int64)
            labels = [str(c) for c in category.cat.categories]
            self.columns[str(name)] = Categories(labels, codes, np.zeros(len(labels), dtype=np.int64))

    def add(self, cell: np.ndarray) -> None:
        """Count the cells of one batch."""
        self.n_cells += len(cell)
        for name, column in self.columns.items():
            if len(cell) and cell.max() >= len(column.code):
                raise ScircuitError(
                    f"The tokens name cell {cell.max()}, but obs column {name!r} has {len(column.code)} rows; pass the "
                    "obs of the AnnData that was tokenised."
                )
            code = column.code[cell]
            column.size[:] += np.bincount(code[code >= 0], minlength=len(column.size))


class Categories(NamedTuple):
    """One obs column: its labels, the code of each cell (-1 where missing) and the cells counted per label."""

    label: list[str]
    code: np.ndarray
    size: np.ndarray


class TopCells:
    """The cells of largest activation for each latent, kept while batches stream by."""

    def __init__(self, n_latents: int, n: int) -> None:
        self._n = n
        nothing = (np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float32))
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [nothing]
        self._n_waiting, self._limit = 0, max(4 * n_latents * n, 1 << 16)

    def add(self, latent: np.ndarray, cell: np.ndarray, activation: np.ndarray) -> None:
        """Offer cells; a cell is offered at most once per latent."""
        self._waiting.append((latent.astype(np.int32), cell.astype(np.int64), activation.astype(np.float32)))
        self._n_waiting += len(latent)
        if self._n_waiting > self._limit:
            self._keep_best()

    def _keep_best(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        latent, cell, activation = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        by_cell = np.argsort(cell, kind="stable")  # equal activations: the earlier cell, whatever the batches were
        latent, cell, activation = latent[by_cell], cell[by_cell], activation[by_cell]
        best = top_per_group(latent, activation, self._n)
        self._waiting, self._n_waiting = [(latent[best], cell[best], activation[best])], 0
        return self._waiting[0]

    def table(self, layer: int) -> pd.DataFrame:
        """`layer, feature, rank` (0 = most active), `cell, activation`."""
        latent, cell, activation = self._keep_best()
        rank = np.arange(len(latent)) - np.searchsorted(latent, latent)
        return pd.DataFrame(
            {
                "layer": np.full(len(latent), layer, dtype=np.int32),
                "feature": latent,
                "rank": rank.astype(np.int32),
                "cell": cell,
                "activation": activation,
            }
        )


def enrich_obs(cells: pd.DataFrame, profile: CellProfile, *, alpha: float = 0.05) -> pd.DataFrame:
    """Categories over-represented among the cells in which a latent is most active: `features/obs.parquet`.

    The query of a latent are its top cells: the most active 5 % of the run, at least 10 and at most as many as the
    catalogue kept, only cells in which it fires. One-sided Fisher tests against all cells of the run; BH over every
    (live latent, category) pair of every column. Rows with q <= `alpha`, most significant first within a latent.
    """
    n = profile.n_cells
    query = cells[cells["rank"] < max(MIN_QUERY, int(np.ceil(TOP_SHARE * n)))]
    latent, first = np.unique(query[["layer", "feature"]].to_numpy(), axis=0, return_inverse=True)
    query_size = np.bincount(first, minlength=len(latent))
    tables = []
    for name, column in profile.columns.items():
        code = column.code[query["cell"].to_numpy()]
        known = code >= 0
        n_labels = len(column.label)
        overlap = np.bincount(first[known] * n_labels + code[known], minlength=len(latent) * n_labels)
        of, label = np.divmod(np.arange(len(latent) * n_labels), max(n_labels, 1))
        p = overlap_p(overlap, column.size[label], query_size[of], n)
        expected = column.size[label] * query_size[of] / n
        tables.append(
            pd.DataFrame(
                {
                    "layer": latent[of, 0],
                    "feature": latent[of, 1],
                    "column": name,
                    "category": np.array(column.label, dtype=object)[label],
                    "n_overlap": overlap,
                    "category_size": column.size[label],
                    "query_size": query_size[of],
                    "fold": np.divide(overlap, expected, out=np.zeros(len(of)), where=expected > 0),
                    "p_value": p,
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy())
    table = table[table["q_value"] <= alpha]
    return table.sort_values(["layer", "feature", "p_value", "column", "category"], ignore_index=True)
