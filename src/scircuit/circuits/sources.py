"""Each source's edges beside those of the random directions that were ablated in its place."""

import pandas as pd

from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import SOURCE
from scircuit.circuits.specificity import is_decoy


def source_counts(circuit: Circuit) -> pd.DataFrame:
    """The table `circuit/sources.parquet`: edges and tests of every source and of its matched random directions.

    `n_random_tests, n_random_edges` are means over the directions, NaN without one; `more_than_random` counts those
    that have fewer edges than the source.
    """
    tests = circuit.tests.assign(draw=circuit.tests["draw"].astype("int64"))
    own = tests[tests["kind"] == "latent"].groupby(SOURCE)
    table = own.agg(n_cells=("n_cells", "max"), n_tests=("n_tests", "sum"))
    table["n_edges"] = circuit.edges.groupby(SOURCE).size().reindex(table.index, fill_value=0)
    made = tests[is_decoy(tests)].groupby([*SOURCE, "draw"])["n_tests"].sum().rename("n_tests").to_frame()
    draws = circuit.controls.assign(draw=circuit.controls["draw"].astype("int64")).groupby([*SOURCE, "draw"]).size()
    made["n_edges"] = draws.reindex(made.index, fill_value=0)
    of_source = table["n_edges"].reindex(made.reset_index("draw").index).to_numpy()
    made["fewer"] = made["n_edges"].to_numpy() < of_source
    by_source = made.groupby(level=[0, 1])
    table["n_random"] = by_source.size().reindex(table.index, fill_value=0)
    table["n_random_tests"] = by_source["n_tests"].mean().reindex(table.index)
    table["n_random_edges"] = by_source["n_edges"].mean().reindex(table.index)
    table["more_than_random"] = by_source["fewer"].sum().reindex(table.index, fill_value=0)
    return table.reset_index().sort_values(SOURCE, ignore_index=True)
