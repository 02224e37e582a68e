"""Counts of each source beside its random directions, against a plain loop."""

import numpy as np

from scircuit.circuits.sources import source_counts
from scircuit.circuits.synthetic import planted_circuit


def test_counts_are_those_of_a_plain_loop():
    circuit = planted_circuit().circuit
    table = source_counts(circuit)
    assert len(table) == len(
        circuit.tests.loc[circuit.tests["kind"] == "latent"].groupby(["source_layer", "source_feature"])
    )
    assert table["n_edges"].sum() == len(circuit.edges) > 0
    for row in table.itertuples():

        def mine(t, r=row):
            return t[(t["source_layer"] == r.source_layer) & (t["source_feature"] == r.source_feature)]

        tests, controls = mine(circuit.tests), mine(circuit.controls)
        draws = sorted(set(tests.loc[tests["kind"] == "random", "draw"]))
        edges = [int((controls["draw"] == d).sum()) for d in draws]
        assert row.n_edges == len(mine(circuit.edges))
        assert row.n_tests == tests.loc[tests["kind"] == "latent", "n_tests"].sum()
        assert row.n_random == len(draws)
        assert row.more_than_random == sum(e < row.n_edges for e in edges)
        assert np.isclose(row.n_random_edges, np.mean(edges), equal_nan=True) if edges else np.isnan(row.n_random_edges)
