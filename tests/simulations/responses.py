"""Responses of targets in cells, most of them without an effect: how often they are called, how intervals cover."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy import stats

from scircuit.circuits.rule import unskewed
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.signflip import signflip_p
from scircuit.tracing.groups import unit_half_width, unit_p
from scircuit.tracing.moments import Moments

N_TARGETS, EFFECTIVE = 2000, 0.1
LEVEL = 0.05

SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "exponential": lambda rng, shape: rng.exponential(1.0, shape) - 1,
    "lognormal": lambda rng, shape: np.exp(rng.standard_normal(shape)) - np.exp(0.5),
    "zero-inflated": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.0, rng.exponential(1.0, shape) - 1),
}
"""Responses of mean 0: without skewness, with some, with much, and where half of the cells do not answer."""


def judged(x: np.ndarray, p: np.ndarray, low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Share of targets without an effect at p <= .05, false-discovery rate and power at q < .05, coverage of intervals.

    `coverage_chosen` is that among the targets called, as a circuit shows them.
    """
    called, effective = benjamini_hochberg(p) < LEVEL, truth != 0
    covered = (low <= truth) & (truth <= high)
    return {
        "size": float((p[~effective] <= LEVEL).mean()),
        "fdr": float((called & ~effective).sum() / max(called.sum(), 1)),
        "power": float((called & effective).sum() / effective.sum()),
        "coverage": float(covered.mean()),
        "coverage_chosen": float(covered[called].mean()) if called.any() else np.nan,
    }


def skewed(rng: np.random.Generator, shape: str, n_cells: int) -> dict[str, dict[str, float]]:
    """Targets of one shape; a tenth has an effect of one SD, half of them along the tail: by either rule."""
    x = SHAPES[shape](rng, (N_TARGETS, n_cells))
    truth = np.where(rng.random(N_TARGETS) < EFFECTIVE, rng.choice([-1.0, 1.0], N_TARGETS), 0.0) * x.std()
    # What does not answer has no effect either, so that the effect over all cells is as much smaller.
    x, truth = x + truth[:, None] * (x != 0), truth * (x != 0).mean()
    mean, sd = x.mean(axis=1), x.std(axis=1, ddof=1)
    half = stats.t.ppf(0.975, n_cells - 1) * sd / np.sqrt(n_cells)
    tests = pd.DataFrame({
        "n_cells": n_cells, "n_nonzero": np.count_nonzero(x, axis=1), "mean_delta": mean, "sd_delta": sd,
        "skewness": stats.skew(np.where(x == 0, np.nan, x), axis=1, nan_policy="omit"),
    })  # fmt: skip
    p = signflip_p(x, rng, draws=1000)
    of = {"sign-flip": p, "allowing for skew": np.maximum(p, unskewed(tests))}
    return {name: judged(x, p, mean - half, mean + half, truth) for name, p in of.items()}


def donors(rng: np.random.Generator, n_donors: int, icc: float, cells_each: int = 20) -> dict[str, dict[str, float]]:
    """Cells within donors that share a part `icc` of the variance; a tenth of the targets has an effect of one SD."""
    donor = np.repeat(np.arange(n_donors), cells_each)
    truth = (rng.random(N_TARGETS) < EFFECTIVE).astype(float)
    shared = np.sqrt(icc) * rng.standard_normal((N_TARGETS, n_donors))[:, donor]
    x = np.sqrt(1 - icc) * rng.standard_normal((N_TARGETS, len(donor))) + shared + truth[:, None]
    mean, sd, n = x.mean(axis=1), x.std(axis=1, ddof=1), len(donor)
    of_units = Moments.zeros(n_donors, N_TARGETS, torch.device("cpu"))
    of_units.add(donor, torch.from_numpy(x.T.copy()), torch.ones(n, N_TARGETS, dtype=torch.float64))
    halves = {
        "cells": stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n),
        "donors": unit_half_width(of_units, n_donors)[0],
    }
    p = {"cells": signflip_p(x, rng, draws=1000), "donors": unit_p(of_units, n_donors, 1.0, 0)[0]}
    return {unit: judged(x, p[unit], mean - half, mean + half, truth) for unit, half in halves.items()}


def mean_of(draws: list[dict[str, dict[str, float]]]) -> pd.DataFrame:
    """Mean of every number over draws, one row per way of judging."""
    return pd.concat([pd.DataFrame(draw).T for draw in draws]).groupby(level=0, sort=False).mean()
