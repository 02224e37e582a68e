"""Sign balance: how many edges support their target, against random directions and the residual copy."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_edges
from scircuit.analysis.question import PAIRS, Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LAYER_PAIR
from scircuit.stats.resampling import cluster_bootstrap, ratio, ratio_interval


def sign_balance(circuit: Circuit, draws: int = 2000, seed: int = 0) -> Result:
    """Share of edges whose target falls when the source is ablated.

    The null is the same share among the edges of norm-matched random directions; for its p the edges of a source and of
    its random directions are exchanged, source by source, and the excess counted anew. The residual copy of an edge,
    -(encoder of the target . decoder of the source) x mean activation of the source, is what the ablation does if every
    layer passes it on unchanged; scaled by one least-squares factor per layer pair (layer norms rescale it), the
    remainder is the rest. Table: one row per layer pair.
    """
    need_edges(circuit)
    rng = np.random.default_rng(seed)
    edges, controls = circuit.edges, circuit.controls
    index = NodeIndex.of(circuit.nodes)
    source = index.sources(edges)
    falls = (edges["mean_delta"] < 0).to_numpy()
    control_falls = (controls["mean_delta"] < 0).to_numpy()

    own = _per_source(source, falls, index.n_nodes)
    random = _per_source(index.sources(controls), control_falls, index.n_nodes)
    touched = (own[:, 1] > 0) | (random[:, 1] > 0)
    own, random = own[touched], random[touched]
    random_share = ratio_interval(random[:, 0], random[:, 1], rng, draws)
    excess = cluster_bootstrap(np.hstack([own, random]), _excess, rng, draws)
    p_excess = _exchange_p(own, random, rng)

    pair = edges["source_layer"].to_numpy(np.int64) * len(index.base) + edges["target_layer"].to_numpy()
    copy, rest = _decompose(circuit, source, pair)
    response_sq = edges["mean_delta"].to_numpy(np.float64) ** 2
    n, n_random = len(edges), len(controls)
    explained = np.column_stack([response_sq - rest**2, response_sq])
    agreement = np.column_stack([(np.sign(copy) == np.sign(edges["mean_delta"])), np.ones(n)])
    measures = [
        Measure.of(
            "supporting_share", ratio_interval(*_sums(source, falls), rng, draws), n, random_share.estimate, p_excess
        ),
        Measure.of("random_supporting_share", random_share, n_random, unit_of_n="edges of random directions"),
        Measure.of("excess_over_random", excess, n, 0.0, p_excess),
        Measure.of("copy_share", ratio_interval(*_sums(source, *explained.T), rng, draws), n, 0.0),
        Measure.of("copy_sign_agreement", ratio_interval(*_sums(source, *agreement.T), rng, draws), n, 0.5),
        Measure.of("supporting_share_of_copy", ratio_interval(*_sums(source, copy < 0), rng, draws), n),
        Measure.of("supporting_share_of_rest", ratio_interval(*_sums(source, rest < 0), rng, draws), n),
    ]
    return QUESTION.answer(
        measures,
        _by_layer_pair(edges, falls, controls, control_falls),
        terms=["supporting", "random direction", *_warnings(circuit)],
    )


def _warnings(circuit: Circuit) -> list[str]:
    """What must be said of a circuit whose edges were called by the published rule."""
    rule = circuit.provenance.get("thresholds") or {}
    return ["zero as negative"] if rule.get("consistency", "nonzero") != "nonzero" else []


def _sums(source: np.ndarray, part: np.ndarray, whole: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Per-source sums of a part and of the whole (edges by default), for the sources that have edges."""
    known = np.bincount(source) > 0
    return np.bincount(source, weights=part)[known], np.bincount(source, weights=whole)[known]


def _per_source(source: np.ndarray, falls: np.ndarray, n_nodes: int) -> np.ndarray:
    """Falling and all edges of every node, float64 `[node, 2]`."""
    return np.column_stack(
        [np.bincount(source, weights=falls, minlength=n_nodes), np.bincount(source, minlength=n_nodes)]
    ).astype(np.float64)


def _excess(totals: np.ndarray) -> np.ndarray:
    return ratio(totals[..., :2]) - ratio(totals[..., 2:])


def _exchange_p(own: np.ndarray, random: np.ndarray, rng: np.random.Generator, draws: int = 2000) -> float:
    """Two-sided p of the excess where a source's edges and those of its random directions are exchangeable."""
    if not (own[:, 1].any() and random[:, 1].any()):
        return float("nan")
    totals, gap = np.hstack([own, random]).sum(axis=0), random - own
    observed = float(_excess(totals))
    as_large = 0
    for _ in range(draws):
        moved = gap[rng.random(len(gap)) < 0.5].sum(axis=0)
        as_large += abs(float(_excess(totals + np.hstack([moved, -moved])))) >= abs(observed) - 1e-12
    return (1 + as_large) / (1 + draws)


def _decompose(circuit: Circuit, source: np.ndarray, pair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The residual copy of each edge and what is left of its response, float64 `[edge]`."""
    response = circuit.edges["mean_delta"].to_numpy(np.float64)
    activation = circuit.nodes["mean_activation"].to_numpy(np.float64)[source]
    copy = -circuit.edges["weight_effect"].to_numpy(np.float64) * activation
    _, code = np.unique(pair, return_inverse=True)
    square = np.bincount(code, weights=copy**2)
    factor = np.bincount(code, weights=copy * response) / np.where(square > 0, square, 1.0)
    return copy, response - factor[code] * copy


def _by_layer_pair(
    edges: pd.DataFrame, falls: np.ndarray, controls: pd.DataFrame, control_falls: np.ndarray
) -> pd.DataFrame:
    own, random = (
        table[LAYER_PAIR].assign(supporting=supporting).groupby(LAYER_PAIR)["supporting"]
        for table, supporting in ((edges, falls), (controls, control_falls))
    )
    table = own.agg(n_edges="size", supporting_share="mean")
    table = table.join(random.agg(n_random_edges="size", random_supporting_share="mean"), how="outer").reset_index()
    counts = ["n_edges", "n_random_edges"]
    return table.assign(**table[counts].fillna(0).astype("int64"))


QUESTION = Question(
    asks="How many edges support their target?",
    title="Sign balance",
    function=sign_balance,
    definition="sign-balance/2",
    null_model="supporting share among the edges of norm-matched random directions",
    marks=f"{PAIRS} Hollow diamonds: random directions. Dashed: one half.",
    words={
        "supporting_share": "supporting share",
        "excess_over_random": "supporting share minus that of random directions",
        "copy_share": "share of the squared response that the residual copy explains",
        "copy_sign_agreement": "edges whose sign is that of the residual copy",
        "supporting_share_of_copy": "supporting share if the residual copy were all",
        "supporting_share_of_rest": "supporting share once the residual copy is taken out",
    },
    edge_columns=("mean_delta", "weight_effect"),
)
