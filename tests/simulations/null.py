"""One simulation where there is nothing to find: what is asked, of what, and how often it is found."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from scircuit.analysis.result import Measure


class Null(NamedTuple):
    """One question, the number asked of it, what the data are, and how many draws are enough."""

    question: str
    number: str
    data: str
    n_draws: int
    draw: Callable[[np.random.Generator, int], float]


def held(measure: Measure, truth: float) -> float:
    """1 where the interval holds the truth, or where there is none."""
    return float(not (truth < measure.low or truth > measure.high))


def drawn(null: Null, seed: int = 0) -> np.ndarray:
    """p of every draw, float64 `[draw]`."""
    rng = np.random.default_rng([seed, *null.question.encode(), *null.data.encode()])
    return np.array([null.draw(rng, i) for i in range(null.n_draws)])
