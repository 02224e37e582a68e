"""CPR and CMD: how soon a behaviour is carried as latents or edges are added, by several orders."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from scircuit.analysis.behaviour_table import Readings, carried, over_units
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.stats.resampling import Interval

WORDS = {
    "specific": "specificity", "d": "|d|", "weight": "|weight effect|", "rate_norm": "firing rate x norm",
    "gradient": "integrated gradients", "random": "random order",
}  # fmt: skip


def circuit_curve(table: pd.DataFrame, behaviour: str | None = None, draws: int = 500, seed: int = 0) -> Result:
    """Areas of faithfulness f over the share of latents (or edges) kept, by every order that was measured.

    CPR = sum of dk (f_i + f_i+1) / 2 over the measured shares k; CMD the same of |1 - f| (arXiv 2504.13151); the
    headline is CPR of latents by specificity, else by |d|. Null: the same area in random order, mean of three. Shares
    are of all latents of the traced layers, or of the circuit's reproducible edges, whose ends are kept. Intervals:
    bootstrap of cells, or donors, over all of it, by t where there are fewer than 20. Table: one row per (unit, order,
    share).
    """
    readings = Readings.of(table, behaviour)
    readings.refuse_if_weak()
    rng = np.random.default_rng(seed)
    rows = readings.rows[readings.rows["kind"] == "order"]
    n = int(readings.cluster.max()) + 1
    parts, areas = [], dict[tuple[str, str, str], Interval]()
    for (unit, order), mine in rows.groupby(["unit", "order"], sort=False):
        wide = mine.pivot(index="cell", columns=["draw", "share"], values="value").sort_index(axis=1)
        shares = np.unique(mine["share"])
        sums = readings.sums(*(wide[column] for column in wide), readings.values("empty"), readings.values("model"))
        sizes = mine.groupby("share")["n_latents"].mean().to_numpy()
        f = _curve(sums.sum(axis=0)).reshape(-1, len(shares)).mean(axis=0)
        curve = {"unit": unit, "order": order, "share": shares, "n_latents": sizes, "faithfulness": f}
        parts.append(pd.DataFrame(curve))
        for name, of in (("cpr", _cpr), ("cmd", _cmd)):
            areas[name, str(unit), str(order)] = over_units(sums, _area(shares, of), rng, draws)
    measures = [
        Measure.of(
            f"{name}_{order}" + ("_edges" if unit == "edge" else ""), interval, n,
            areas[name, unit, "random"].estimate if order != "random" else np.nan, unit_of_n=readings.unit,
        )
        for (name, unit, order), interval in areas.items()
    ]  # fmt: skip
    return QUESTION.answer(measures, pd.concat(parts, ignore_index=True))


def _curve(totals: np.ndarray) -> np.ndarray:
    """Faithfulness at each size, of totals `[..., size + 2]`: every size, then silenced and model."""
    sizes = totals[..., :-2]
    ends = np.broadcast_to(totals[..., None, -2:], (*sizes.shape, 2))
    return carried(np.concatenate([sizes[..., None], ends], axis=-1))


def _cpr(f: np.ndarray) -> np.ndarray:
    return f


def _cmd(f: np.ndarray) -> np.ndarray:
    return np.abs(1 - f)


def _area(shares: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """By trapezia, over the span of the shares; the mean over the draws of an order, one after another."""

    def area(totals: np.ndarray) -> np.ndarray:
        f = _curve(totals)
        by_draw = of(f.reshape(*f.shape[:-1], -1, len(shares)))
        middle = (by_draw[..., 1:] + by_draw[..., :-1]) / 2
        return (middle * np.diff(shares)).sum(axis=-1).mean(axis=-1)

    return area


QUESTION = Question(
    asks="How few latents carry the behaviour, and by which order are they found?",
    title="Circuit sizes",
    function=circuit_curve,
    definition="circuit_curve/1",
    null_model="the same sizes in random order, mean of three",
    terms=("faithfulness", "silenced"),
    glossary="CPR: area under faithfulness over the share kept, high where few carry much; CMD: area of its distance "
    "from 1, low where the kept ones do as the model does.",
    needs=("faithfulness",),
    marks="Lines: faithfulness of the first latents (full) or edges (dotted) of an order, all others silenced.",
    words={
        f"{area}_{order}{ending}": f"{area.upper()} of {what} by {word}"
        for ending, what in (("", "latents"), ("_edges", "edges"))
        for order, word in WORDS.items()
        for area in ("cpr", "cmd")
    },
)
