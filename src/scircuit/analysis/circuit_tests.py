"""Tests of a circuit as a whole: sufficient, necessary, minimal, equivalent to the model."""

import numpy as np
import pandas as pd
from scipy import stats

from scircuit.analysis.behaviour_table import Readings
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.shares import wilson

CHANCE = 0.9
"""A circuit is held to be better than this share of random ones, and a member to matter more than as many of them."""
MARGIN = 0.1
"""Distance of P(circuit above model) from a half up to which the two are taken for equal."""
ALPHA = 0.05


def circuit_tests(table: pd.DataFrame, behaviour: str | None = None) -> Result:
    """Hold a circuit to random ones of equal size in strata of layer and firing rate (Shi et al., arXiv 2410.13032).

    loss(S) = mean over cells of |m(S) - m(model)|. `sufficient`: share of random circuits R with loss(C) < loss(R);
    `necessary`: share with loss(model without C) > loss(model without R); ties, as of a circuit that is drawn itself,
    count against both. p = P(Binom(n, .9) >= their number): that the circuit beats no more than .9 of them.
    `minimal`: share of the members that matter: taking one away moves m more than .9 of single random latents beside
    the circuit do (the same p, Benjamini-Hochberg over members); left out with fewer than 29 of those, among which none
    could.
    `equivalent`: P(m(C) > m(model)) over cells, ties counting half, its interval that of as many trials as there are
    cells, or donors; p is that of a distance of .1 at most from a half, so a small one refutes equivalence; left out
    for a cosine, which the model has at its largest.
    Table: one row per member tried, `layer, feature, change, p_value, q_value, matters`.
    """
    readings = Readings.of(table, behaviour)
    readings.refuse_if_weak()
    model = readings.values("model")
    measures = [_against_random(readings, model, *names) for names in _SETS]
    changes = _members(readings)
    if _tail(n_beside := readings.by_latent("beside").shape[1], n_beside) < ALPHA:
        beaten = float(changes["matters"].mean())
        measures.append(Measure("minimal", beaten, null=1 - CHANCE, n=len(changes), unit_of_n="members"))
    if readings.name != "embedding":
        measures.append(_equivalent(readings, model))
    return QUESTION.answer(measures, changes)


_SETS = (("sufficient", "circuit", "random_circuit"), ("necessary", "rest", "random_rest"))


def _against_random(readings: Readings, model: pd.Series, name: str, own: str, random: str) -> Measure:
    drawn = readings.by_draw(random)
    if drawn.empty:
        raise ScircuitError("no random circuit was measured; measure again with --draws above 0.")
    loss = float((readings.values(own) - model).abs().mean())
    of_random = drawn.sub(model, axis=0).abs().mean().to_numpy()
    better = loss < of_random if own == "circuit" else loss > of_random
    t, n = int(better.sum()), len(better)
    return Measure(name, t / n, *wilson(t, n), CHANCE, _tail(t, n), n, "random circuits")


def _tail(t: int, n: int) -> float:
    return float(stats.binom.sf(t - 1, n, CHANCE))


def _members(readings: Readings) -> pd.DataFrame:
    """What taking away each member moves, beside what a random latent beside the circuit does."""
    circuit = readings.values("circuit")
    lost, beside = (readings.by_latent(kind).sub(circuit, axis=0).abs().mean() for kind in ("without", "beside"))
    if lost.empty or beside.empty:
        raise ScircuitError(
            "no single latent was measured; measure again with members and draws above 0, and a circuit (--grade) that "
            "leaves latents out."
        )
    n = len(beside)
    t = np.array([int((beside < change).sum()) for change in lost])
    p = np.array([_tail(int(k), n) for k in t])
    found = lost.rename("change").reset_index().assign(random=float(np.quantile(beside, CHANCE)), p_value=p)
    found["q_value"] = benjamini_hochberg(p)
    found["matters"] = found["q_value"] < ALPHA
    return found.sort_values("change", ascending=False, ignore_index=True)


def _equivalent(readings: Readings, model: pd.Series) -> Measure:
    share = float(((np.sign(readings.values("circuit") - model) + 1) / 2).mean())
    # Units, not cells, are what is independent: a test of their number at the observed share.
    n = int(readings.cluster.max()) + 1
    far = round(n * max(share, 1 - share))
    p = float(min(1.0, stats.binom.sf(far - 1, n, 0.5 + MARGIN) + stats.binom.cdf(n - far, n, 0.5 + MARGIN)))
    return Measure("equivalent", share, *wilson(n * share, n), 0.5, p, n, readings.unit)


QUESTION = Question(
    asks="Is the circuit sufficient, necessary and minimal?",
    title="Circuit tests",
    function=circuit_tests,
    definition="circuit_tests/1",
    null_model="random circuits of as many latents in every stratum of layer and firing rate; for members single "
    "random latents beside the circuit; for equivalence a half",
    terms=("silenced",),
    glossary="sufficient: nearer to the model than random circuits are, all else silenced; necessary: silencing it "
    "leads further away; minimal: its members each change more than a random latent does.",
    needs=("faithfulness",),
    marks="Dots: members taken away one at a time. Dashed: the change that .9 of random latents stay below.",
    words={
        "sufficient": "random circuits that are further from the model",
        "necessary": "random circuits that are missed less",
        "minimal": "members that matter",
        "equivalent": "cells in which the circuit lies above the model",
    },
)
