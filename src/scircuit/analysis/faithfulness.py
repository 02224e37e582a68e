"""Faithfulness and completeness: how much of a behaviour the circuit carries alone, and how much is left without it."""

import numpy as np
import pandas as pd

from scircuit.analysis.behaviour_table import Readings, carried, share_carried
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import permutation_p
from scircuit.stats.shares import wilson

_OTHER = {"mean": "zero", "zero": "mean"}
_SETS = {"faithfulness": ("circuit", "random_circuit"), "completeness": ("rest", "random_rest")}


def faithfulness(table: pd.DataFrame, behaviour: str | None = None, draws: int = 2000, seed: int = 0) -> Result:
    """Share of a behaviour m that the circuit C carries: (m(C) - m(0)) / (m(model) - m(0)), 0 silencing every latent.

    `faithfulness` is that of the circuit alone, `completeness` that of the model without it (low where nothing else
    does the same work), by the ablation that was asked; `_zero` or `_mean` by the other, where that moves
    the behaviour at all; `_without_error` with what the dictionaries do
    not reconstruct taken away too, in C and in 0. Null: random
    circuits of equal size in every stratum of layer and firing rate; p is the rank among them (alone: carries more;
    without: leaves less). `probe_accuracy`, of a linear probe: share of held-out cells told right, beside the
    commonest category.
    Intervals: bootstrap of cells, or donors, over the whole ratio, by t where there are fewer than 20. Table: one row
    per measure.
    """
    readings = Readings.of(table, behaviour)
    readings.refuse_if_weak()
    rng = np.random.default_rng(seed)
    n = int(readings.cluster.max()) + 1
    measures = []
    for ablation, error, ending in _ways(readings):
        for name, (kind, random) in _SETS.items():
            of = readings.values(kind, ablation, error)
            interval = share_carried(readings, of, rng, draws, ablation, error)
            chance = _chance(readings, random) if not ending else np.zeros(0)
            null = float(chance.mean()) if len(chance) else np.nan
            tail = "greater" if kind == "circuit" else "less"
            p = permutation_p(interval.estimate, chance, tail) if len(chance) else np.nan
            measures.append(Measure.of(name + ending, interval, n, null, p, readings.unit))
    measures += _accuracy(readings)
    known = pd.DataFrame(measures, columns=list(Measure._fields)).assign(behaviour=readings.name)
    return QUESTION.answer(measures, known)


def _ways(readings: Readings) -> list[tuple[str, str, str]]:
    """Ablation, error and the ending of the names; beside the first those by which there is something to carry."""
    own, other = readings.ablation, _OTHER[readings.ablation]
    ways = [(own, "kept", "")]
    for way in ((other, "kept", f"_{other}"), (own, "ablated", "_without_error")):
        try:
            readings.refuse_if_weak(*way[:2])
        except ScircuitError:
            continue
        ways.append(way)
    return ways


def _chance(readings: Readings, kind: str) -> np.ndarray:
    """The shares that random circuits carry, `[draw]`."""
    drawn = readings.by_draw(kind)
    ends = readings.values("empty"), readings.values("model")
    return np.array([float(carried(readings.sums(drawn[draw], *ends).sum(axis=0))) for draw in drawn])


def _accuracy(readings: Readings) -> list[Measure]:
    right = readings.rows.loc[readings.rows["kind"] == "held_out", "value"]
    if right.empty:
        return []
    chance = float(readings.rows.loc[readings.rows["kind"] == "majority", "value"].mean())
    low, high = wilson(right.sum(), len(right))
    return [Measure("probe_accuracy", right.mean(), low, high, chance, n=len(right), unit_of_n="cells")]


QUESTION = Question(
    asks="How much of a behaviour of the model does the circuit carry?",
    title="Faithfulness",
    function=faithfulness,
    definition="faithfulness/1",
    null_model="random circuits of as many latents in every stratum of layer and firing rate; of a probe, the "
    "commonest category",
    terms=("faithfulness", "silenced"),
    needs=("faithfulness",),
    words={
        "faithfulness": "carried by the circuit alone",
        "completeness": "left without the circuit",
        "faithfulness_zero": "carried alone, zero ablation",
        "completeness_zero": "left without it, zero ablation",
        "faithfulness_mean": "carried alone, mean ablation",
        "completeness_mean": "left without it, mean ablation",
        "faithfulness_without_error": "carried alone, without SAE error",
        "completeness_without_error": "left without it, without SAE error",
        "probe_accuracy": "held-out accuracy of the probe",
    },
)
