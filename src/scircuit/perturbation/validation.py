"""Whether a circuit predicts knock-downs better than what one would say without it.

Phases: bring predictions and truth to the same knock-downs and genes; score the circuit and every baseline per
knock-down; average over knock-downs with intervals by bootstrap over knocked-down genes; compare the circuit with the
best baseline of each metric, pair by pair; write the sentences from that comparison.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scircuit.errors import ScircuitError
from scircuit.perturbation import baselines as base
from scircuit.perturbation.metrics import METRICS, Score, agreement
from scircuit.perturbation.predictions import GenePredictions
from scircuit.perturbation.screen import Screen
from scircuit.perturbation.skill import CIRCUIT, PERMUTED, compare, sentences, summarise
from scircuit.perturbation.truth import Truth

_OTHERS = 50


@dataclass(frozen=True)
class Validation:
    """The outcome of a validation."""

    knockdowns: pd.DataFrame
    """One row per (stratum, method, knock-down): `stratum, method, label, gene, n_genes, n_responding, n_called`
    (responding genes with a predicted sign) and the metrics. Strata: `all`, `direct`, `indirect`."""
    summary: pd.DataFrame
    """Macro-averages of every (stratum, method, metric), 95 % interval by bootstrap over knocked-down genes."""
    comparison: pd.DataFrame
    """The circuit beside the best baseline, one row per (stratum, metric); see `skill.compare`."""
    sentences: tuple[str, ...]
    """What may be said about skill, from `comparison`."""
    n_unpredicted: int
    """Knock-downs of genes that load on no source of the circuit; they are not judged."""


def validate(
    predictions: GenePredictions,
    truth: Truth,
    screen: Screen | None = None,
    extra: Mapping[str, pd.DataFrame] | None = None,
    network: pd.DataFrame | None = None,
    seed: int = 0,
) -> Validation:
    """Judge predictions against measured knock-downs, beside baselines.

    Mean expression and co-expression need the control cells of a `screen`. `extra` are further baselines as `target,
    gene, score`, for example an in-silico deletion by the same model. With a `network` of direct regulation (`source,
    target`: ENCODE binding, CollecTRI), direct and indirect targets of its sources are judged apart. `seed` is that of
    the draws of permuted sources.
    """
    whole = truth
    truth, scores, predicted, shared = _align(predictions, whole)
    # The majority is taken over every knock-down of the screen, also over those the circuit is silent about.
    majority = Score(*(values[np.ix_(predicted, shared)] for values in base.gene_majority(whole)))
    rng = np.random.default_rng(seed)
    methods = {CIRCUIT: scores, "always down": base.always_down(truth), "gene-wise majority": majority}
    if screen is not None:
        methods["mean expression"] = base.mean_expression(screen, truth)
        if truth.knockdowns["gene"].isin(screen.genes).any():
            methods["co-expression"], methods["absolute co-expression"] = base.coexpression(screen, truth)
    for name, table in (extra or {}).items():
        methods[name] = base.from_table(table, truth)

    tables, nulls = [], {}
    for stratum, inside in _strata(truth, network).items():
        judge = _Judge(truth, scores, inside)
        if not judge.rows.size:
            continue
        tables += [judge.table(method, score).assign(stratum=stratum) for method, score in methods.items()]
        permuted, null = _permuted(judge, scores, rng)
        tables.append(permuted.assign(stratum=stratum))
        nulls[stratum] = null
    knockdowns = pd.concat(tables, ignore_index=True)
    knockdowns = knockdowns[["stratum", *knockdowns.columns.drop("stratum")]]
    summary = summarise(knockdowns)
    comparison = compare(knockdowns, summary, nulls, rng)
    return Validation(knockdowns, summary, comparison, sentences(comparison), int((~predicted).sum()))


def _align(predictions: GenePredictions, truth: Truth) -> tuple[Truth, Score, np.ndarray, np.ndarray]:
    """Truth and predictions on the knock-downs and genes they share, and which these are (bool)."""
    frame = predictions.scores
    rows = frame.index.get_indexer(pd.Index(truth.knockdowns["gene"]))
    predicted = (rows >= 0) & (frame.to_numpy() != 0).any(axis=1)[rows]
    if not predicted.any():
        raise ScircuitError(
            "the circuit predicts for none of the knocked-down genes; use a screen of genes the model reads (symbols "
            "must match), or trace sources that carry them."
        )
    columns = frame.columns.get_indexer(truth.genes)
    shared = columns >= 0
    if not shared.any():
        raise ScircuitError("the screen measures none of the genes the circuit predicts; check that both use symbols.")
    keep = np.ix_(np.flatnonzero(predicted), np.flatnonzero(shared))
    sign, score = truth.sign[keep], truth.score[keep]
    if not (sign != 0).any():
        raise ScircuitError(
            "none of the genes the circuit predicts responds to any knock-down; there is nothing to judge."
        )
    aligned = Truth(
        truth.knockdowns[predicted].reset_index(drop=True), truth.genes[shared], sign, score, truth.one_sided
    )
    signed = frame.to_numpy()[np.ix_(rows[predicted], columns[shared])].astype(np.float64)
    return aligned, Score(signed, np.abs(signed)), predicted, shared


def _strata(truth: Truth, network: pd.DataFrame | None) -> dict[str, np.ndarray]:
    """Masks `[knockdown, gene]`; direct and indirect cover only knock-downs of genes the network speaks of."""
    strata = {"all": np.ones(truth.score.shape, dtype=bool)}
    if network is None:
        return strata
    missing = [name for name in ("source", "target") if name not in network]
    if missing:
        raise ScircuitError(f"the network has no column {missing[0]!r}; it needs source and target.")
    direct = np.zeros(truth.score.shape, dtype=bool)
    speaks = truth.knockdowns["gene"].isin(network["source"]).to_numpy()
    for row in np.flatnonzero(speaks):
        own = network.loc[network["source"] == truth.knockdowns["gene"][row], "target"]
        direct[row] = truth.genes.isin(own)
    return strata | {"direct": direct, "indirect": ~direct & speaks[:, None]}


class _Judge:
    """One stratum: the knock-downs with a responding gene in it, and the genes that count for each."""

    def __init__(self, truth: Truth, circuit: Score, inside: np.ndarray):
        self.truth = truth
        self.inside = inside & truth.measured
        self.called = circuit.signed != 0
        self.rows = np.flatnonzero(((truth.sign != 0) & self.inside).any(axis=1))

    def one(self, row: int, signed: np.ndarray, magnitude: np.ndarray, called: np.ndarray) -> list[float]:
        genes = self.inside[row]
        return agreement(
            self.truth.sign[row, genes], self.truth.score[row, genes], signed[genes], magnitude[genes],
            called[genes], self.truth.one_sided,
        )  # fmt: skip

    def table(self, method: str, score: Score) -> pd.DataFrame:
        values = [
            self.one(row, score.signed[row], score.magnitude[row], self.called[row]) for row in self.rows.tolist()
        ]
        return self.frame(method, np.array(values))

    def frame(self, method: str, values: np.ndarray) -> pd.DataFrame:
        responds = (self.truth.sign != 0) & self.inside
        return self.truth.knockdowns.iloc[self.rows].assign(
            method=method,
            n_genes=self.inside[self.rows].sum(axis=1),
            n_responding=responds[self.rows].sum(axis=1),
            n_called=(responds & self.called)[self.rows].sum(axis=1),
            **dict(zip(METRICS, values.T, strict=True)),
        )


def _permuted(judge: _Judge, circuit: Score, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """The circuit's predictions for other genes, judged on this knock-down.

    Returns the mean over up to 50 other genes per knock-down, and their metrics `[knockdown, other, metric]` from which
    the null of the macro-average is drawn.
    """
    gene, _ = pd.factorize(judge.truth.knockdowns["gene"])
    representative = np.unique(gene, return_index=True)[1]
    n_others = min(_OTHERS, len(representative) - 1)
    null = np.full((len(judge.rows), max(n_others, 1), len(METRICS)), np.nan)
    for place, row in enumerate(judge.rows.tolist() if n_others > 0 else ()):
        others = rng.permutation(representative[gene[representative] != gene[row]])[:n_others]
        for draw, other in enumerate(others):
            signed = circuit.signed[other]
            null[place, draw] = judge.one(row, signed, np.abs(signed), signed != 0)
    counts = np.isfinite(null).sum(axis=1)
    mean = np.divide(np.nansum(null, axis=1), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return judge.frame(PERMUTED, mean), null
