"""Consensus: label pairs that edges of several models connect, against who-drives-whom drawn anew."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit.analysis.conditions import LabelledEdges, check_conditions, label_vocabulary
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import permutation_p, ratio_interval

_GLOSSARY = (
    "conserved pair: a source label and a target label that edges of at least two models connect; self pairs, a label "
    "driving itself, are counted apart. fold: conserved pairs over their expected number when every source label keeps "
    "its edges and every target label its frequency."
)


class _Model(NamedTuple):
    """The labelled edges of one model's conditions."""

    edges: list[LabelledEdges]

    def pairs(self, n_labels: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Number of edges of each label pair, int64 `[pair]`; targets exchanged when `rng` is given."""
        code = [
            part.source * n_labels + (part.target if rng is None else part.permuted_targets(rng)) for part in self.edges
        ]
        return np.bincount(np.concatenate(code), minlength=n_labels * n_labels)


def consensus(
    conditions: Sequence[Artefacts], draws: int = 1000, paper_draws: int = 1000, min_models: int = 2, seed: int = 0
) -> Result:
    """Label pairs conserved between models.

    Each model's pairs are the union over its conditions; a pair is conserved if at least `min_models` models have it.
    The null exchanges the targets of labelled edges within every (source layer, target layer) of every condition: each
    model keeps its sources, their out-degrees, and the frequency of every target label (bipartite configuration model).
    Where edges pile up on few label pairs, the exchange spreads them over more pairs, of which more meet by chance:
    `fold` is then too low. `edge_fold` counts edges instead of pairs, sum over pairs of n_A n_B, whose expectation does
    not depend on how either model piles its edges up.

    Parameters
    ----------
    conditions : sequence of Artefacts
        Any number, of at least two models, traced with the same thresholds in as many cells.
    draws : int
        Exchanges, at least 1,000 for a publishable p.
    paper_draws : int
        Draws of the published null (`paper_...` measures, two models only), 0 for none.
    min_models : int
        Models that must share a pair.
    seed : int

    Returns
    -------
    Result
        Measures `fold` (null 1), `n_conserved` (null: expected) and `edge_fold` (null 1) over pairs of two different
        labels, `self_fold` and `n_self_conserved` over self pairs, and with two models `paper_fold`,
        `paper_n_conserved` (self pairs included). p = (b + 1) / (draws + 1), upper tail; intervals resample source
        labels. Table: one row per conserved pair, `source_label, target_label, is_self, n_models, n_conditions,
        n_edges, mean_abs_d, lowest_mean_abs_d` (of its models), `expected` (share of draws in which it is conserved),
        `p_value, q_value`.

    Raises
    ------
    ScircuitError
        Conditions that cannot be compared, or no label pair in some model.
    """
    models = check_conditions(conditions, max(min_models, 2))
    if min_models < 2 or min_models > len(models):
        raise ScircuitError(f"min_models is {min_models}; choose 2 to {len(models)}, the number of models given.")
    rng = np.random.default_rng(seed)
    labels = label_vocabulary([condition.circuit() for condition in conditions])
    edges = {condition.name: LabelledEdges.of(condition.circuit(), labels) for condition in conditions}
    groups = [_Model([edges[c.name] for c in conditions if c.model_name == model]) for model in models]
    for model, group in zip(models, groups, strict=True):
        if not sum(len(part.row) for part in group.edges):
            raise ScircuitError(
                f"no edge of {model} has a label at both ends; annotate its latents, or ask feature_consensus, which "
                "needs no labels."
            )
    n = len(labels)
    found = [group.pairs(n) for group in groups]
    conserved = _shared(found, min_models)
    is_self = np.eye(n, dtype=bool).ravel()
    hits, chance = np.zeros(n * n, dtype=np.int64), np.zeros(n)
    drawn = np.zeros((3, draws))
    for draw in progress(range(draws), desc="consensus"):
        exchanged = [group.pairs(n, rng) for group in groups]
        shared = _shared(exchanged, min_models)
        together = _together(exchanged, is_self)
        hits += shared
        chance += together / draws
        drawn[:, draw] = shared[~is_self].sum(), shared[is_self].sum(), together.sum()
    measures = []
    for place, (prefix, inside) in enumerate((("", ~is_self), ("self_", is_self))):
        measures += _measures(prefix, conserved & inside, hits * inside / draws, drawn[place], n, rng)
    own = _together(found, is_self)
    n_edges = sum(len(part.row) for part in edges.values())
    p = permutation_p(own.sum(), drawn[2])
    measures.insert(2, Measure.of("edge_fold", ratio_interval(own, chance, rng), n_edges, 1.0, p))
    if len(models) == 2 and paper_draws:
        measures += _paper(found[0] > 0, found[1] > 0, n, paper_draws, rng)
    table = _table(conditions, edges, labels, np.flatnonzero(conserved), hits, draws)
    return Result.of(
        "consensus",
        "consensus/1",
        measures,
        table,
        "targets exchanged among the labelled edges of each layer pair of each condition",
        glossary=_GLOSSARY,
    )


def _shared(pairs: list[np.ndarray], min_models: int) -> np.ndarray:
    return np.sum([count > 0 for count in pairs], axis=0) >= min_models


def _together(pairs: list[np.ndarray], is_self: np.ndarray) -> np.ndarray:
    """Sum over pairs of models and targets of n_A n_B per source label, self pairs left out, `[label]`."""
    product = sum((a * b for a, b in combinations(pairs, 2)), np.zeros(len(is_self)))
    n = round(len(is_self) ** 0.5)
    return np.where(is_self, 0.0, product).reshape(n, n).sum(axis=1)


def _measures(
    prefix: str, conserved: np.ndarray, expected: np.ndarray, drawn: np.ndarray, n: int, rng: np.random.Generator
) -> list[Measure]:
    """Fold and number of conserved pairs; source labels are the clusters."""
    own, null = conserved.reshape(n, n).sum(axis=1), expected.reshape(n, n).sum(axis=1)
    taking_part = (own > 0) | (null > 0)
    total = int(own.sum())
    p = permutation_p(total, drawn)
    fold = ratio_interval(own[taking_part], null[taking_part], rng)
    return [
        Measure.of(prefix + "fold", fold, total, 1.0, p, "pairs"),
        Measure(f"n_{prefix}conserved", total, null=float(null.sum()), p_value=p, n=total, unit_of_n="pairs"),
    ]


def _paper(a: np.ndarray, b: np.ndarray, n: int, draws: int, rng: np.random.Generator) -> list[Measure]:
    """The published comparison (arXiv 2603.01752, phase 5 step 2), self pairs included.

    A random bijection of the second model's labels is applied to both ends of its pairs: label roles and frequencies
    are lost, so targets drawn at random look conserved. p = mean(drawn >= observed), as published.
    """
    source, target = np.divmod(np.flatnonzero(b), n)
    used = np.unique([source, target])
    observed = int((a & b).sum())
    drawn = np.empty(draws)
    mapped = np.arange(n)
    for draw in range(draws):
        mapped[used] = rng.permutation(used)
        drawn[draw] = a[mapped[source] * n + mapped[target]].sum()
    expected = float(drawn.mean())
    p = float((drawn >= observed).mean())
    fold = observed / max(expected, 1.0)
    return [
        Measure("paper_fold", fold, null=1.0, p_value=p, n=observed, unit_of_n="pairs"),
        Measure("paper_n_conserved", observed, null=expected, p_value=p, n=observed, unit_of_n="pairs"),
    ]


def _table(
    conditions: Sequence[Artefacts],
    edges: dict[str, LabelledEdges],
    labels: pd.Index,
    pairs: np.ndarray,
    hits: np.ndarray,
    draws: int,
) -> pd.DataFrame:
    n = len(labels)
    parts = []
    for condition in conditions:
        own = edges[condition.name]
        d = np.abs(condition.circuit().edges["cohens_d"].to_numpy(np.float64)[own.row])
        parts.append(
            pd.DataFrame(
                {
                    "pair": own.source * n + own.target,
                    "abs_d": d,
                    "model": condition.model_name,
                    "condition": condition.name,
                }
            )
        )
    every = pd.concat(parts, ignore_index=True)
    every = every[every["pair"].isin(pairs)]
    table = (
        every.groupby("pair")
        .agg(
            n_models=("model", "nunique"),
            n_conditions=("condition", "nunique"),
            n_edges=("abs_d", "size"),
            mean_abs_d=("abs_d", "mean"),
        )
        .reindex(pairs)
    )
    per_model = every.groupby(["pair", "model"])["abs_d"].mean()
    table["lowest_mean_abs_d"] = per_model.groupby("pair").min()
    source, target = np.divmod(pairs, n)
    table.insert(0, "source_label", labels.to_numpy()[source])
    table.insert(1, "target_label", labels.to_numpy()[target])
    table.insert(2, "is_self", source == target)
    table["expected"] = hits[pairs] / max(draws, 1)
    table["p_value"] = (hits[pairs] + 1) / (draws + 1)
    # Pairs that no model or draw connects cannot be conserved; the others were all looked at.
    n_possible = int(np.count_nonzero(hits) + np.count_nonzero(hits[pairs] == 0))
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy(), n_tests=n_possible)
    return table.sort_values(["p_value", "mean_abs_d"], ascending=[True, False]).reset_index(drop=True)


QUESTION = Question(
    name="consensus",
    asks="Do models connect the same labels? Beside it the published null, which calls random targets conserved.",
    title="Consensus of the models",
    function=consensus,
    figure="consensus",
    marks="Bars: observed; hollow diamonds: expected under the null of the row.",
    words={
        "fold": "conserved pairs, observed over expected",
        "n_conserved": "conserved pairs of two different labels",
        "edge_fold": "edges on shared pairs, observed over expected",
        "self_fold": "conserved self pairs, observed over expected",
        "n_self_conserved": "conserved self pairs",
        "paper_fold": "conserved pairs over the published null (self pairs included)",
        "paper_n_conserved": "conserved pairs as published",
    },
    of_runs=True,
)
