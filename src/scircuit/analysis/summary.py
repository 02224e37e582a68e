"""The few numbers a first report needs, each from the module that answers its question in full."""

from dataclasses import dataclass

import pandas as pd

from scircuit.analysis.attenuation import attenuation
from scircuit.analysis.effect_sizes import effect_sizes
from scircuit.analysis.hubs import hubs
from scircuit.analysis.result import Result
from scircuit.analysis.sign_balance import sign_balance
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.specificity import is_decoy


@dataclass(frozen=True)
class Summary:
    """What a circuit says at first sight.

    Attributes
    ----------
    layer_pairs : DataFrame
        One row per (source layer, target layer): `n_sources, n_tests, n_edges, n_random_edges,
        random_directions` (traced per source).
    sign_balance, effect_sizes, attenuation, hubs : Result or None
        None where the circuit has no edges.
    """

    layer_pairs: pd.DataFrame
    sign_balance: Result | None
    effect_sizes: Result | None
    attenuation: Result | None
    hubs: Result | None

    @property
    def results(self) -> list[Result]:
        """The answers that exist."""
        every = (self.sign_balance, self.effect_sizes, self.attenuation, self.hubs)
        return [result for result in every if result is not None]


def summarise(circuit: Circuit, draws: int = 2000, seed: int = 0) -> Summary:
    """Answer the first questions; a circuit without edges gives its counts of tests and nothing else."""
    pairs = layer_pairs(circuit)
    if circuit.edges.empty:
        return Summary(pairs, None, None, None, None)
    return Summary(
        pairs,
        sign_balance(circuit, draws, seed),
        effect_sizes(circuit, draws, seed),
        attenuation(circuit, draws, seed),
        hubs(circuit, draws, seed),
    )


def layer_pairs(circuit: Circuit) -> pd.DataFrame:
    """Sources, tests and edges of every (source layer, target layer); see `Summary`."""
    keys = ["source_layer", "target_layer"]
    own = circuit.tests.loc[circuit.tests["kind"] == "latent"]
    random = circuit.tests.loc[is_decoy(circuit.tests)]
    table = own.groupby(keys).agg(n_sources=("source_feature", "nunique"), n_tests=("n_tests", "sum"))
    table["n_edges"] = circuit.edges.groupby(keys).size()
    table["n_random_edges"] = circuit.controls.groupby(keys).size()
    table["random_directions"] = random.groupby(keys)["draw"].nunique()
    return table.fillna(0).astype("int64").reset_index()
