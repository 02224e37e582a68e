"""Attenuation: how the rate of edges falls with the number of layers between source and target."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_edges
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.specificity import of_family
from scircuit.stats.resampling import Interval, cluster_bootstrap

_STEEPEST = 20.0
"""Rate per layer beyond which a decay counts as infinite."""


def attenuation(circuit: Circuit, draws: int = 2000, seed: int = 0) -> Result:
    """Edges per test made, by depth distance, and the length over which the rate decays.

    The decay rate is that of a Poisson model with the tests as exposure (`decay_rate`), with one level per source layer
    (deep sources only have near targets); the decay length is its inverse, infinite where the rate does not fall.
    Tests are those with a non-zero response.

    Measures `decay_rate` (per layer; null: that of random directions) and `decay_length` (layers). Table: one row per
    (kind, source layer, distance): `n_edges, n_tests, edges_per_1000_tests, n_sources`.
    """
    need_edges(circuit)
    rng = np.random.default_rng(seed)
    own, own_table = _decay(circuit, circuit.edges, "latent", rng, draws)
    null, null_table = _decay(circuit, circuit.controls, "random", rng, 0)
    length = Interval(_length(own.estimate), _length(own.high), _length(own.low), own.level, own.n_clusters)
    n = len(circuit.edges)
    return QUESTION.answer(
        [
            Measure.of("decay_rate", own, n, null.estimate),
            Measure.of("decay_length", length, n, _length(null.estimate)),
        ],
        pd.concat([own_table, null_table], ignore_index=True),
    )


def _length(rate: float) -> float:
    if np.isnan(rate):
        return np.nan
    return 1 / rate if rate > 0 else np.inf


def _decay(
    circuit: Circuit, edges: pd.DataFrame, kind: str, rng: np.random.Generator, draws: int
) -> tuple[Interval, pd.DataFrame]:
    tests = circuit.tests.loc[of_family(circuit.tests, kind)]
    index = NodeIndex.of(circuit.nodes)
    cells, test_cell = np.unique(_cell(tests), return_inverse=True)
    edge_cell = np.searchsorted(cells, _cell(edges))
    sources, test_source = np.unique(index.sources(tests), return_inverse=True)
    edge_source = np.searchsorted(sources, index.sources(edges))
    n = len(cells)
    shape = (len(sources), n)
    found = np.bincount(edge_source * n + edge_cell, minlength=shape[0] * n).reshape(shape)
    made = np.bincount(test_source * n + test_cell, tests["n_tests"], minlength=shape[0] * n).reshape(shape)
    layer, distance = np.divmod(cells, 1 << 10)

    def rate(totals: np.ndarray) -> np.ndarray:
        return decay_rate(totals[..., :n], totals[..., n:], layer, distance)

    interval = cluster_bootstrap(np.hstack([found, made]), rate, rng, draws)
    n_edges, n_tests = found.sum(axis=0), made.sum(axis=0)
    table = pd.DataFrame(
        {
            "kind": kind,
            "source_layer": layer,
            "distance": distance,
            "n_edges": n_edges,
            "n_tests": n_tests.astype(np.int64),
            "edges_per_1000_tests": 1000 * n_edges / np.maximum(n_tests, 1),
            "n_sources": (made > 0).sum(axis=0),
        }
    )
    return interval, table


def _cell(table: pd.DataFrame) -> np.ndarray:
    """Source layer and distance in one number."""
    layer = table["source_layer"].to_numpy(np.int64)
    return (layer << 10) + table["target_layer"].to_numpy(np.int64) - layer


def decay_rate(n_edges: np.ndarray, n_tests: np.ndarray, layer: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Rate r of the Poisson model n_edges ~ n_tests exp(level of the source layer - r distance), by maximum likelihood.

    Given the edges of a layer their distances are multinomial with weights n_tests exp(-r distance), which leaves one
    equation: the mean distance of the edges equals the expected one (Cameron & Trivedi 2013, Regression Analysis of
    Count Data, 9.3). Cells without an edge count with their tests; a regression of logs would drop them and so read the
    rate too low. Counts are `[..., cell]`, one per (layer, distance). NaN where no layer with an edge was tested at two
    distances, infinite where every edge lies at its layer's nearest distance (or, negative, at its farthest).
    """
    member = (layer[:, None] == np.unique(layer)).astype(np.float64)
    total = n_edges @ member
    # Counted from the nearest, so that nothing overflows.
    far = distance - np.array([distance[layer == i].min() for i in layer])

    def expected(rate: np.ndarray) -> np.ndarray:
        """Sum over edges of their expected distance."""
        weight = n_tests * np.exp(-np.multiply.outer(rate, far) - np.maximum(-rate, 0)[..., None] * far.max(initial=0))
        of_layer = weight @ member
        mean = ((weight * distance) @ member) / np.where(of_layer > 0, of_layer, 1.0)
        return (total * mean).sum(axis=-1)

    seen = (n_edges * distance).sum(axis=-1)
    low, high = (np.full(seen.shape, bound) for bound in (-_STEEPEST, _STEEPEST))
    known = expected(low) - expected(high) > 1e-9 * np.maximum(seen, 1.0)
    ends = np.where(seen <= expected(high) + 1e-9 * seen, np.inf, np.where(seen >= expected(low), -np.inf, 0.0))
    for _ in range(50):
        middle = (low + high) / 2
        nearer = expected(middle) < seen  # edges lie farther than that: the rate is smaller
        low, high = np.where(nearer, low, middle), np.where(nearer, middle, high)
    return np.where(known, np.where(ends != 0, ends, (low + high) / 2), np.nan)


QUESTION = Question(
    asks="How do edges thin out with depth?",
    title="Attenuation over depth",
    function=attenuation,
    definition="attenuation/2",
    null_model="decay of the edges of norm-matched random directions",
    terms=("depth", "random direction"),
    marks="Edges per 1,000 tests, one line per source layer. Grey, dashed: random directions.",
    words={"decay_rate": "decay rate per layer", "decay_length": "decay length in layers"},
)
