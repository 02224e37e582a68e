"""Attenuation: how the rate of edges falls with the number of layers between source and target."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_edges
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.specificity import of_family
from scircuit.stats.resampling import Interval, cluster_bootstrap


def attenuation(circuit: Circuit, draws: int = 2000, seed: int = 0) -> Result:
    """Edges per test made, by depth distance, and the length over which the rate decays.

    The decay rate is minus the slope of log(edges / tests) on the distance, weighted by the number of
    edges, with one level per source layer (deep sources only have near targets); the decay length is its
    inverse, infinite where the rate does not fall. Tests are those with a non-zero response.

    Returns
    -------
    Result
        Measures `decay_rate` (per layer; null: that of random directions) and `decay_length` (layers). Table:
        one row per (kind, source layer, distance): `n_edges, n_tests, edges_per_1000_tests, n_sources`.
    """
    need_edges(circuit, "attenuation")
    rng = np.random.default_rng(seed)
    own, own_table = _decay(circuit, circuit.edges, "latent", rng, draws)
    null, null_table = _decay(circuit, circuit.controls, "random", rng, 0)
    length = Interval(_length(own.estimate), _length(own.high), _length(own.low), own.level, own.n_clusters)
    n = len(circuit.edges)
    return Result.of(
        "attenuation",
        "attenuation/1",
        [
            Measure.of("decay_rate", own, n, null.estimate),
            Measure.of("decay_length", length, n, _length(null.estimate)),
        ],
        pd.concat([own_table, null_table], ignore_index=True),
        "decay of the edges of norm-matched random directions",
        ["depth", "random direction"],
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
    """Minus the within-layer weighted slope of log(n_edges / n_tests) on the distance.

    Parameters
    ----------
    n_edges, n_tests : float `[..., cell]`
        Counts of each (source layer, distance); empty ones carry no weight.
    layer, distance : int `[cell]`

    Returns
    -------
    float `[...]`; NaN where no layer has edges at two distances.
    """
    weight = np.where(n_tests > 0, n_edges, 0.0)
    log_rate = np.log(np.where(weight > 0, n_edges, 1.0) / np.where(weight > 0, n_tests, 1.0))
    member = (layer[:, None] == np.unique(layer)).astype(np.float64)

    def centred(values: np.ndarray) -> np.ndarray:
        total = weight @ member
        mean = ((weight * values) @ member) / np.where(total > 0, total, 1.0)
        return values - mean @ member.T

    x, y = centred(np.broadcast_to(distance.astype(float), weight.shape)), centred(log_rate)
    square = (weight * x**2).sum(axis=-1)
    slope = (weight * x * y).sum(axis=-1) / np.where(square > 0, square, 1.0)
    return np.where(square > 1e-12, -slope, np.nan)


QUESTION = Question(
    name="attenuation",
    asks="How do edges thin out with depth?",
    title="Attenuation over depth",
    function=attenuation,
    figure="attenuation",
    marks="Edges per 1,000 tests, one line per source layer. Grey, dashed: random directions.",
    words={"decay_rate": "decay rate per layer", "decay_length": "decay length in layers"},
)
