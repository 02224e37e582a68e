"""Heavy tails of counts: a discrete power law against its rivals by likelihood ratio."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from scircuit.errors import ScircuitError


class TailFit(NamedTuple):
    """The power-law tail and how its rivals fare on it.

    `alpha` is the exponent, `x_min` where the tail begins, `n_tail` the counts in it, `ks` the largest
    distance of the distribution functions. `rivals` has one row per rival: `rival, log_likelihood_ratio`
    (power law minus rival, positive favours the power law), `p_value` (Vuong, two-sided).
    """

    alpha: float
    x_min: int
    n_tail: int
    ks: float
    rivals: pd.DataFrame


def compare_tails(counts: ArrayLike, min_tail: int = 50) -> TailFit:
    """Fit the tail of positive counts by a discrete power law and compare it with its rivals there.

    Clauset, Shalizi & Newman 2009: the beginning of the tail minimises the Kolmogorov-Smirnov distance, the
    exponent maximises the likelihood x**-alpha / zeta(alpha, x_min), and rivals (lognormal, exponential,
    stretched exponential; discretised by differences of their survival function) are compared by Vuong's
    normalised likelihood ratio.

    Parameters
    ----------
    counts : int `[unit]`
        Zeros are left out.
    min_tail : int
        Fewest counts that may be called a tail.

    Raises
    ------
    ScircuitError
        With fewer than `min_tail` positive counts.
    """
    x = np.sort(np.asarray(counts).astype(np.int64).ravel())
    x = x[x > 0]
    if len(x) < min_tail:
        raise ScircuitError(f"{len(x)} positive counts are too few to judge a tail; at least {min_tail} are needed.")
    values = np.unique(x)
    starts = values[len(x) - np.searchsorted(x, values) >= min_tail]
    if len(starts) > 100:
        starts = starts[np.linspace(0, len(starts) - 1, 100).astype(int)]
    fits = []
    for start in starts:
        beyond = x[x >= start]
        alpha = _exponent(beyond, start)
        fits.append((_ks(beyond, start, alpha), alpha, start))
    ks, alpha, start = min(fits)
    tail = x[x >= start]
    own = -alpha * np.log(tail) - np.log(special.zeta(alpha, start))
    rows = []
    for name, (survival, guess) in _RIVALS.items():
        ratio = own - _fit_rival(tail, int(start), survival, guess(tail))
        spread = ratio.std() * np.sqrt(len(tail))
        p = 2 * special.ndtr(-abs(ratio.sum()) / spread) if spread > 0 else 1.0
        rows.append({"rival": name, "log_likelihood_ratio": ratio.sum(), "p_value": p})
    return TailFit(float(alpha), int(start), len(tail), float(ks), pd.DataFrame(rows))


def _exponent(tail: np.ndarray, start: int) -> float:
    from scipy import optimize

    mean_log = np.log(tail).mean()
    found = optimize.minimize_scalar(
        lambda alpha: alpha * mean_log + np.log(special.zeta(alpha, start)), bounds=(1.01, 20), method="bounded"
    )
    return float(found.x)


def _ks(tail: np.ndarray, start: int, alpha: float) -> float:
    values, count = np.unique(tail, return_counts=True)
    model = 1 - special.zeta(alpha, values + 1) / special.zeta(alpha, start)
    return float(np.abs(np.cumsum(count) / len(tail) - model).max())


Survival = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _log_lognormal(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return special.log_ndtr(-(np.log(x) - theta[0]) / np.exp(theta[1]))


def _log_exponential(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return -np.exp(theta[0]) * x


def _log_stretched(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a tail so steep that nothing lies beyond: -inf is meant
        return -((x * np.exp(theta[0])) ** np.exp(theta[1]))


_RIVALS: Mapping[str, tuple[Survival, Callable[[np.ndarray], list[float]]]] = {
    "lognormal": (_log_lognormal, lambda x: [np.log(x).mean(), np.log(np.log(x).std() + 0.1)]),
    "exponential": (_log_exponential, lambda x: [-np.log(x.mean())]),
    "stretched_exponential": (_log_stretched, lambda x: [-np.log(x.mean()), -0.3]),
}


def _fit_rival(tail: np.ndarray, start: int, survival: Survival, guess: list[float]) -> np.ndarray:
    """Log-likelihood of each tail count under the best rival, conditioned on the tail, `[unit]`."""
    from scipy import optimize

    values, inverse = np.unique(tail, return_inverse=True)
    weight = np.bincount(inverse)

    def log_mass(theta: np.ndarray) -> np.ndarray:
        above = survival(values - 0.5, theta)
        step = np.minimum(survival(values + 0.5, theta) - above, -1e-300)
        return above + np.log(-np.expm1(step)) - survival(np.array([start - 0.5]), theta)

    def loss(theta: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            total = -float(weight @ log_mass(theta))
        return total if np.isfinite(total) else 1e300

    found = optimize.minimize(loss, guess, method="Nelder-Mead", options={"maxiter": 2000})
    return log_mass(found.x)[inverse]
