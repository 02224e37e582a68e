"""Effects of two circuits measured again on equal numbers of cells, from the responses kept cell by cell."""

from dataclasses import replace

import numpy as np
import pandas as pd

from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS
from scircuit.errors import ScircuitError


def at_equal_cells(
    circuit: Circuit, effects: pd.DataFrame, source_cells: pd.DataFrame, n: int, rng: np.random.Generator
) -> Circuit:
    """The circuit with d of every edge taken over `n` cells, drawn at random from those in which its source fires.

    The error of d, and with it the mean of |d|, depends on the number of cells: circuits are comparable where it is
    the same. Edges of sources that fire in fewer cells, or without kept responses, are left out.

    Parameters
    ----------
    effects, source_cells : DataFrame
        `trace/cell_effects.parquet` and `trace/source_cells.parquet` of the circuit's trace.
    n : int
        Cells, at least 2.
    """
    if n < 2:
        raise ScircuitError(f"d over {n} cells is not defined; choose at least 2.")
    source, cell = ENDS[:2], [*ENDS[:2], "cell"]
    shuffled = source_cells[cell].iloc[rng.permutation(len(source_cells))]
    chosen = shuffled[shuffled.groupby(source).cumcount() < n]
    enough = chosen.groupby(source).size().loc[lambda size: size == n].index
    seen = effects.merge(chosen, on=cell)
    delta = seen["delta"].astype(np.float64)
    sums = seen[ENDS].assign(total=delta, square=delta**2).groupby(ENDS)[["total", "square"]].sum()
    kept = pd.MultiIndex.from_frame(effects[ENDS].drop_duplicates())
    edges = circuit.edges
    ends = pd.MultiIndex.from_frame(edges[ENDS])
    usable = pd.MultiIndex.from_frame(edges[source]).isin(enough) & ends.isin(kept)
    # Edges whose responses all lie in other cells do nothing in these: a d of 0.
    total, square = sums.reindex(ends[usable]).fillna(0.0).to_numpy().T
    sd = np.sqrt(np.maximum(square - total**2 / n, 0) / (n - 1))
    d = np.divide(total / n, sd, out=np.zeros(len(sd)), where=sd > 0)
    constant = (sd == 0) & (total != 0)
    d[constant] = np.copysign(np.inf, total[constant])
    return replace(circuit, edges=edges[usable].assign(cohens_d=d, n_cells=np.int32(n)))
