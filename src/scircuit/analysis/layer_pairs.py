"""Sources, tests and edges of every pair of layers: the counts that everything else is read beside."""

import pandas as pd

from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LAYER_PAIR
from scircuit.circuits.specificity import is_decoy


def layer_pairs(circuit: Circuit) -> pd.DataFrame:
    """One row per (source layer, target layer).

    Columns `n_sources, n_tests, n_edges`, and of decoys `n_random_edges, n_random_tests, random_directions` (traced per
    source).
    """
    keys = LAYER_PAIR
    own = circuit.tests.loc[circuit.tests["kind"] == "latent"]
    random = circuit.tests.loc[is_decoy(circuit.tests)].groupby(keys)
    table = own.groupby(keys).agg(n_sources=("source_feature", "nunique"), n_tests=("n_tests", "sum"))
    table["n_edges"] = circuit.edges.groupby(keys).size()
    table["n_random_edges"] = circuit.controls.groupby(keys).size()
    table["n_random_tests"] = random["n_tests"].sum()
    table["random_directions"] = random["draw"].nunique()
    return table.fillna(0).astype("int64").reset_index()
