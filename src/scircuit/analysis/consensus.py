"""Consensus: label pairs that edges of several models connect, against who-drives-whom drawn anew."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit.analysis.conditions import LabelledEdges, check_conditions, label_vocabulary, labelled_edges
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import permutation_p, ratio_interval


def consensus(
    conditions: Sequence[Artefacts], draws: int = 1000, paper_draws: int = 1000, min_models: int = 2, seed: int = 0
) -> Result:
    """Label pairs conserved between models, of conditions traced with the same thresholds in as many cells.

    Each model's pairs are the union over its conditions; a pair is conserved if at least `min_models` models have it.
    The null exchanges the targets of labelled edges within every (source layer, target layer) of every condition: each
    model keeps its sources, their out-degrees, and the frequency of every target label (bipartite configuration model).
    Where edges pile up on few label pairs, the exchange spreads them over more pairs, of which more meet by chance:
    `fold` is then too low. `edge_fold` counts edges instead of pairs, sum over pairs of n_A n_B, whose expectation does
    not depend on how either model piles its edges up. Self pairs are counted apart, except in the measures of the
    published null (`paper_...`, two models only, `paper_draws` of it). Intervals resample source labels.

    Table: one row per conserved pair, `source_label, target_label, is_self, n_models, n_conditions, n_edges,
    mean_abs_d, lowest_mean_abs_d` (of its models), `expected` (share of draws in which it is conserved), `p_value,
    q_value`.
    """
    models = check_conditions(conditions, max(min_models, 2))
    if min_models < 2 or min_models > len(models):
        raise ScircuitError(f"min_models is {min_models}; choose 2 to {len(models)}, the number of models given.")
    rng = np.random.default_rng(seed)
    labels = label_vocabulary([condition.circuit() for condition in conditions])
    edges = [LabelledEdges.of(condition.circuit(), labels) for condition in conditions]
    groups = [[own for own, c in zip(edges, conditions, strict=True) if c.model_name == model] for model in models]
    for model, group in zip(models, groups, strict=True):
        if not sum(len(part.source) for part in group):
            raise ScircuitError(
                f"no edge of {model} has a label at both ends; annotate its latents, or ask feature_consensus, which "
                "needs no labels."
            )
    n = len(labels)
    found = [_pairs(group, n) for group in groups]
    conserved = _shared(found, min_models)
    is_self = np.eye(n, dtype=bool).ravel()
    hits, chance = np.zeros(n * n, dtype=np.int64), np.zeros(n)
    drawn = np.zeros((3, draws))
    for draw in progress(range(draws), desc="consensus"):
        exchanged = [_pairs(group, n, rng) for group in groups]
        shared = _shared(exchanged, min_models)
        together = _together(exchanged, is_self)
        hits += shared
        chance += together / draws
        drawn[:, draw] = shared[~is_self].sum(), shared[is_self].sum(), together.sum()
    measures = []
    for place, (prefix, inside) in enumerate((("", ~is_self), ("self_", is_self))):
        measures += _measures(prefix, conserved & inside, hits * inside / draws, drawn[place], n, rng)
    own = _together(found, is_self)
    n_edges = sum(len(part.source) for part in edges)
    p = permutation_p(own.sum(), drawn[2])
    measures.insert(2, Measure.of("edge_fold", ratio_interval(own, chance, rng), n_edges, 1.0, p))
    if len(models) == 2 and paper_draws:
        measures += _paper(found[0] > 0, found[1] > 0, n, paper_draws, rng)
    table = _table(labelled_edges(conditions, edges), labels, np.flatnonzero(conserved), hits, draws)
    return QUESTION.answer(measures, table)


def _pairs(edges: list[LabelledEdges], n_labels: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Edges of each label pair in one model's conditions, int64 `[pair]`; targets exchanged when `rng` is given."""
    code = [part.source * n_labels + (part.target if rng is None else part.permuted_targets(rng)) for part in edges]
    return np.bincount(np.concatenate(code), minlength=n_labels * n_labels)


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


def _table(edges: pd.DataFrame, labels: pd.Index, pairs: np.ndarray, hits: np.ndarray, draws: int) -> pd.DataFrame:
    n = len(labels)
    every = edges.assign(pair=edges["source"] * n + edges["target"])
    every = every[every["pair"].isin(pairs)]
    of_pair = every.groupby("pair")
    table = of_pair[["model", "condition"]].nunique().set_axis(["n_models", "n_conditions"], axis=1)
    table = table.join(of_pair["abs_d"].agg(n_edges="size", mean_abs_d="mean")).reindex(pairs)
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
    asks="Do models connect the same labels? Beside it the published null, which calls random targets conserved.",
    title="Consensus of the models",
    function=consensus,
    definition="consensus/1",
    null_model="targets exchanged among the labelled edges of each layer pair of each condition",
    glossary="conserved pair: a source label and a target label that edges of at least two models connect; self "
    "pairs, a label driving itself, are counted apart. fold: conserved pairs over their expected number when every "
    "source label keeps its edges and every target label its frequency.",
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
