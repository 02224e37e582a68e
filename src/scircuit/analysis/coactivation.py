"""Co-activation: whether PMI picks out the causal edges among pairs of equal firing rates."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_columns, need_edges
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.strata import node_strata
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, LAYER_PAIR
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import t_p, two_way_mean

MOST_COMPARISONS = 20_000_000


def coactivation(circuit: Circuit, pairs: pd.DataFrame, n_matched: int | None = None, seed: int = 0) -> Result:
    """Area under the curve of PMI for telling causal edges from matched pairs without an edge.

    Each edge (s, t) is compared with pairs (s, t') whose target is of t's layer and firing-rate decile and is no target
    of s. The area is the chance that the edge has the larger PMI, ties counting half: 0.5 when co-activation knows
    nothing of causation. Set overlap, the published measure, is near 1 for any pairs at all. The null of the share is
    that of the matched pairs. Table: one row per layer pair.

    `pairs`: PMI is log2 of the observed over the expected share of positions at which both latents fire. Pairs that
      never fire together may be absent; they rank below all others.
    `n_matched`: matched pairs per edge; by default 20, fewer above a million edges, where one each tells as much.
    """
    need_edges(circuit)
    need_columns("co-activation table", pairs, [*ENDS, "pmi"])
    rng = np.random.default_rng(seed)
    index = NodeIndex.of(circuit.nodes)
    strata = node_strata(circuit.nodes)
    source, target = index.sources(circuit.edges), index.targets(circuit.edges)
    lookup = _Lookup(index, pairs)
    edge_keys = np.sort(source * index.n_nodes + target)
    pmi = lookup(source * index.n_nodes + target)
    n_matched = n_matched or int(np.clip(MOST_COMPARISONS // len(source), 1, 20))

    # Small types: with 25 million edges every array counts. A win is 2, a tie 1.
    wins, matched, above = (np.zeros(len(source), dtype=np.int32) for _ in range(3))
    usable = strata.code[target] >= 0
    for _ in range(n_matched):
        keys = strata.draw(np.where(usable, target, target[usable][:1]), target.shape, rng)
        keys += source * index.n_nodes
        free = usable & ~_find(edge_keys, keys)[1]
        theirs = lookup(keys)
        wins += free * ((pmi > theirs) * np.int32(1) + (pmi >= theirs))
        above += free & (theirs > 0)
        matched += free
    compared = matched > 0
    if not compared.any():
        raise ScircuitError("no edge has a pair of equal firing rates without an edge; trace fewer sources.")
    area = (wins[compared] / (2 * matched[compared])).astype(np.float32)
    # A target that fires with everything makes all its edges look alike, as a source does.
    ends = source[compared], target[compared]
    n_edges = int(compared.sum())
    fires_together = pmi[compared] > 0
    auc = two_way_mean(area, *ends)
    table = circuit.edges.loc[compared, LAYER_PAIR]
    by_pair = table.assign(auc=area, pmi_above_0=fires_together).groupby(LAYER_PAIR)
    return QUESTION.answer(
        [
            Measure.of("auc", auc, n_edges, 0.5, t_p(auc, 0.5)),
            Measure.of("share_pmi_above_0", two_way_mean(fires_together, *ends), n_edges, above.sum() / matched.sum()),
        ],
        by_pair.agg(
            n_edges=("auc", "size"), auc=("auc", "mean"), share_pmi_above_0=("pmi_above_0", "mean")
        ).reset_index(),
    )


class _Lookup:
    """PMI of pairs of nodes, -inf where the table has none."""

    def __init__(self, index: NodeIndex, pairs: pd.DataFrame) -> None:
        keys = index.sources(pairs) * index.n_nodes + index.targets(pairs)
        order = np.argsort(keys, kind="stable")
        self._keys, self._pmi = keys[order], pairs["pmi"].to_numpy(np.float32)[order]

    def __call__(self, keys: np.ndarray) -> np.ndarray:
        """PMI of pairs given as source row * number of nodes + target row."""
        if not len(self._keys):
            return np.full(len(keys), -np.inf, dtype=np.float32)
        position, known = _find(self._keys, keys)
        return np.where(known, self._pmi[position], np.float32(-np.inf))


def _find(ordered: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each key is, and whether: in the order of the keys, which is many times faster where both are long."""
    order = np.argsort(keys)
    found = np.empty(len(keys), dtype=np.int64)
    found[order] = np.minimum(np.searchsorted(ordered, keys[order]), len(ordered) - 1)
    return found, ordered[found] == keys


QUESTION = Question(
    asks="Does co-activation tell which pairs are causal?",
    title="Co-activation",
    function=coactivation,
    definition="coactivation-auc/2",
    null_model="pairs of the same source with a target of equal layer and firing rate that is no edge",
    terms=("pmi",),
    needs=("circuit", "coactivation"),
    marks="Dots: layer pairs, area grows with their edges. Bars: 95% intervals, sources and targets as clusters. "
    "Dashed: no better than chance.",
    words={"auc": "area under the curve of PMI", "share_pmi_above_0": "edges with PMI above 0"},
    table_columns={"coactivation": [*ENDS, "pmi"]},
)
