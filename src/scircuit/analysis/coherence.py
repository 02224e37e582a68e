"""Coherence: whether the ends of an edge share gene sets more often than latents of the same kind."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit.analysis.nodes import NodeIndex, need_edges
from scircuit.analysis.question import PAIRS, Question
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.strata import Strata, node_strata
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LAYER_PAIR
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import permutation_p, ratio_interval

_CHUNK = 1 << 21
MANY_EDGES = 1_000_000
"""Edges beyond which the total over redrawn targets is drawn from the normal distribution with its exact mean and
variance: a sum of so many independent bounded terms differs from it by less than a thousand draws can tell."""


class TermMatch:
    """Best shared gene set of one latent with every other, by information content."""

    def __init__(self, circuit: Circuit, index: NodeIndex) -> None:
        terms = circuit.terms
        row = index.rows(terms["layer"], terms["feature"])
        code, names = pd.factorize(terms["term"], sort=True)
        content = np.zeros(len(names))
        np.maximum.at(content, code, terms["information_content"].to_numpy(np.float64))
        row, code = np.divmod(np.unique(row * max(len(names), 1) + code), max(len(names), 1))
        self.n_terms = np.bincount(row, minlength=index.n_nodes)
        self._content = content
        self._terms_of = np.split(code, np.cumsum(self.n_terms)[:-1])
        order = np.argsort(code, kind="stable")
        self._nodes_of = np.split(row[order], np.cumsum(np.bincount(code, minlength=len(names)))[:-1])

    def best(self, node: int) -> np.ndarray:
        """Largest information content of a set shared with `node`, float32 `[node]`; -1 where none is."""
        best = np.full(len(self.n_terms), -1.0, dtype=np.float32)
        own = self._terms_of[node]
        for term in own[np.argsort(self._content[own], kind="stable")]:
            best[self._nodes_of[term]] = self._content[term]
        return best


class _Tally(NamedTuple):
    """Sums over the edges whose ends are both annotated; axis 0: edges sharing a set, summed best match."""

    observed: np.ndarray
    drawn: np.ndarray
    per_source: np.ndarray
    """Shared, expected to be shared, best match, expected best match, edges. Expectations are exact means over strata;
    `drawn` totals give p."""
    n_edges: int
    by_pair: pd.DataFrame


def coherence(circuit: Circuit, draws: int = 1000, seed: int = 0, n_bins: int = 10, min_size: int = 20) -> Result:
    """Share of edges whose ends share a significant gene set, against targets of the same kind.

    Among edges with both ends annotated. The null redraws each edge's target among the latents of its layer,
    firing-rate decile and number-of-terms decile: annotation-rich sources and targets share sets by chance alone, so
    the raw share says little. Fewer bins are used where a layer is small (`n_bins`, `min_size`: see `node_strata`). The
    best match is the information content of the most informative shared set, 0 where none is shared. The edges of
    random directions have the same four measures (`random_...`). Table: one row per layer pair.
    """
    need_edges(circuit)
    rng = np.random.default_rng(seed)
    index = NodeIndex.of(circuit.nodes)
    match = TermMatch(circuit, index)
    strata = node_strata(circuit.nodes, match.n_terms, n_bins, min_size)
    tally = _tally(circuit.edges, index, match, strata, rng, draws)
    if tally.n_edges == 0:
        raise ScircuitError("no edge has two annotated ends, so coherence has no answer; annotate with more gene sets.")
    measures = _measures("", tally, rng)
    control = _tally(circuit.controls, index, match, strata, rng, draws)
    if control.n_edges:
        measures += _measures("random_", control, rng)
    return QUESTION.answer(measures, tally.by_pair)


def _tally(
    edges: pd.DataFrame,
    index: NodeIndex,
    match: TermMatch,
    strata: Strata,
    rng: np.random.Generator,
    draws: int,
) -> _Tally:
    source, target = index.sources(edges), index.targets(edges)
    usable = (match.n_terms[source] > 0) & (strata.code[target] >= 0)
    source, target = source[usable], target[usable]
    order = np.argsort(source, kind="stable")
    source, target = source[order], target[order]
    names, begin = np.unique(source, return_index=True)
    observed, drawn, spread = np.zeros(2), np.zeros((2, draws)), np.zeros(2)
    per_source = np.zeros((len(names), 5))
    shares, expected = np.zeros(len(source), dtype=bool), np.zeros(len(source))
    ends_of = np.append(begin, len(source))
    many = len(source) > MANY_EDGES
    for i in progress(range(len(names)), desc="coherence"):
        block = slice(ends_of[i], ends_of[i + 1])
        ends, stratum = target[block], strata.code[target[block]]
        best = match.best(int(names[i]))
        shares[block] = best[ends] >= 0
        own = np.array([shares[block].sum(), np.maximum(best[ends], 0).sum()])
        mean, square = _moments(best, strata)
        chance = mean[:, stratum].sum(axis=1)
        expected[block] = mean[0, stratum]
        observed += own
        spread += (square - mean**2)[:, stratum].sum(axis=1)
        per_source[i] = [own[0], chance[0], own[1], chance[1], len(ends)]
        if not many:
            drawn += _redrawn(best, ends, strata, rng, draws)
    if many:
        drawn = per_source[:, [1, 3]].sum(axis=0)[:, None] + np.sqrt(spread)[:, None] * rng.standard_normal((2, draws))
    table = edges.loc[usable, LAYER_PAIR].iloc[order]
    grouped = table.assign(shares=shares, expected=expected).groupby(LAYER_PAIR)
    by_pair = grouped.agg(
        n_edges=("shares", "size"), coherent_share=("shares", "mean"), expected_share=("expected", "mean")
    ).reset_index()
    by_pair["fold"] = by_pair["coherent_share"] / by_pair["expected_share"].replace(0, np.nan)
    return _Tally(observed, drawn, per_source, len(source), by_pair)


def _moments(best: np.ndarray, strata: Strata) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square, over each stratum, of sharing a set and of the best match: float64 `[2, stratum]` each."""
    hit = np.flatnonzero((best >= 0) & (strata.code >= 0))
    code, content, n = strata.code[hit], best[hit].astype(np.float64), len(strata.size)
    count = np.bincount(code, minlength=n)
    mean = np.stack([count, np.bincount(code, content, minlength=n)]) / strata.size
    return mean, np.stack([count, np.bincount(code, content**2, minlength=n)]) / strata.size


def _redrawn(best: np.ndarray, ends: np.ndarray, strata: Strata, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Edges of one source that share a set and their summed best match, targets drawn anew: float64 `[2, draw]`."""
    shared, content = best >= 0, np.maximum(best, 0)
    null = np.zeros((2, draws))
    step = max(1, _CHUNK // len(ends))
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        other = strata.draw(ends, (stop - start, len(ends)), rng)
        null[0, start:stop] = shared[other].sum(axis=1)
        null[1, start:stop] = content[other].sum(axis=1)
    return null


def _measures(prefix: str, tally: _Tally, rng: np.random.Generator) -> list[Measure]:
    measures, draws = [], tally.drawn.shape[1]
    names = [("fold", "coherent_share"), ("best_match_fold", "best_match")]
    for i, (fold, share) in enumerate(names):
        own, null, n = tally.per_source[:, 2 * i], tally.per_source[:, 2 * i + 1], tally.per_source[:, 4]
        p = permutation_p(tally.observed[i], tally.drawn[i])
        measures += [
            Measure.of(prefix + fold, ratio_interval(own, null, rng, draws), tally.n_edges, 1.0, p),
            Measure.of(prefix + share, ratio_interval(own, n, rng, draws), tally.n_edges, null.sum() / n.sum(), p),
        ]
    return measures


QUESTION = Question(
    asks="Do the ends of an edge share gene sets beyond chance?",
    title="Coherence",
    function=coherence,
    definition="coherence/1",
    null_model="targets redrawn within layer, firing-rate decile and number-of-terms decile",
    terms=("coherence", "random direction"),
    marks=f"{PAIRS} Dashed, hollow diamonds: a fold of 1, as many shared sets as chance gives.",
    words={
        "fold": "coherent edges, observed over expected",
        "coherent_share": "coherent share",
        "best_match_fold": "information content of the best shared set, observed over expected",
        "best_match": "mean information content of the best shared set",
    },
    redraws=True,
)
