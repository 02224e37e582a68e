"""Ratios adjusted for covariates: logistic and negative-binomial regression by statsmodels."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr

from scircuit._optional import optional
from scircuit.analysis.result import Measure


class Ratio(NamedTuple):
    """Odds ratio or rate ratio of one covariate: estimate, 95 % interval, two-sided Wald p, number of rows."""

    estimate: float
    low: float
    high: float
    p_value: float
    n: int

    def measure(self, name: str, unit: str) -> Measure:
        """The ratio as a measure; its null is 1."""
        return Measure(name, self.estimate, self.low, self.high, 1.0, self.p_value, self.n, unit)


UNDEFINED = Ratio(np.nan, np.nan, np.nan, np.nan, 0)


def odds_ratio(outcome: np.ndarray, covariates: pd.DataFrame, name: str, *groups: np.ndarray) -> Ratio:
    """Odds ratio of covariate `name` for a bool outcome, standard errors clustered by `groups`.

    By leaving out one group after the other, a Newton step each (CR3 of Bell & McCaffrey 2002): the sandwich of Liang &
    Zeger (1986) is too small where the outcome is rare. Of two kinds of groups, crossed (pairs: their sources and their
    targets), the variance is that over both (Cameron, Gelbach & Miller 2011), and at least that of either. NaN where
    the covariate or the outcome does not vary, or separates the other.
    """
    if _constant(outcome) or any(_constant(covariates[name][outcome == value]) for value in (False, True)):
        return UNDEFINED._replace(n=len(outcome))
    sm = _statsmodels()
    model = sm.GLM(outcome.astype(float), _design(covariates), family=sm.families.Binomial())
    return _ratio(model, name, len(outcome), partial(_left_out_error, groups=groups))


def _left_out_error(fit: Any, place: int, groups: tuple[np.ndarray, ...]) -> float:
    """Standard error of one coefficient from what it moves by when groups are left out."""
    x, mu = np.asarray(fit.model.exog), np.asarray(fit.mu)
    weight, residual = mu * (1 - mu), np.asarray(fit.model.endog) - mu
    whole = (x * weight[:, None]).T @ x

    def variance(code: np.ndarray) -> float:
        steps = []
        for rows in np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1]):
            own = x[rows]
            left = whole - (own * weight[rows, None]).T @ own
            steps.append(np.linalg.solve(left, own.T @ residual[rows])[place])
        return float(np.square(steps).sum())

    own = [variance(np.unique(g, return_inverse=True)[1]) for g in groups]
    return float(np.sqrt(max(sum(own) - (len(own) - 1) * variance(np.arange(len(x))), *own)))


def rate_ratio(counts: np.ndarray, covariates: pd.DataFrame, name: str, exposure: np.ndarray) -> Ratio:
    """Rate ratio of covariate `name` for counts with an exposure, negative binomial with robust standard errors.

    Variance mu + alpha mu^2 with alpha = sum((y - mu)^2 - y) / sum(mu^2) (the auxiliary regression of Cameron & Trivedi
    1990), 0 where the counts spread no more than Poisson; errors are HC1, so they hold whatever the variance. NaN where
    the covariate or the counts do not vary.
    """
    if _constant(counts) or _constant(covariates[name]):
        return UNDEFINED
    sm = _statsmodels()
    design, offset = _design(covariates), np.log(exposure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mu = sm.GLM(counts, design, family=sm.families.Poisson(), offset=offset).fit().mu
    alpha = float(((counts - mu) ** 2 - counts).sum() / (mu**2).sum())
    family = sm.families.NegativeBinomial(alpha=alpha) if alpha > 1e-6 else sm.families.Poisson()
    return _ratio(sm.GLM(counts, design, family=family, offset=offset), name, len(counts), cov_type="HC1")


def raw_odds_ratio(outcome: np.ndarray, exposed: np.ndarray) -> Ratio:
    """Odds ratio of a 2 x 2 table with 0.5 added to each cell (Haldane-Anscombe), Woolf interval, Fisher's exact p."""
    from scipy.stats import fisher_exact, norm

    table = np.array([[np.sum(exposed & outcome), np.sum(exposed & ~outcome)],
                      [np.sum(~exposed & outcome), np.sum(~exposed & ~outcome)]])  # fmt: skip
    if 0 in (*table.sum(axis=0), *table.sum(axis=1)):
        return UNDEFINED
    smooth = table + 0.5
    log_ratio = float(np.log(smooth[0, 0] * smooth[1, 1] / (smooth[0, 1] * smooth[1, 0])))
    reach = float(norm.ppf(0.975) * np.sqrt((1 / smooth).sum()))
    p = float(fisher_exact(table).pvalue)
    return Ratio(np.exp(log_ratio), np.exp(log_ratio - reach), np.exp(log_ratio + reach), p, len(outcome))


def _ratio(model: Any, name: str, n: int, error_of: Callable[[Any, int], float] | None = None, **options: Any) -> Ratio:
    """Fit, and read one coefficient; a fit that does not converge or separates is NaN.

    The standard error is that of the fit unless `error_of` it gives another.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit = model.fit(**options)
            place = model.exog_names.index(name)
            error = error_of(fit, place) if error_of else float(np.asarray(fit.bse)[place])
        except (np.linalg.LinAlgError, ValueError):
            return UNDEFINED._replace(n=n)
    estimate = float(np.asarray(fit.params)[place])
    # Separation shows as a coefficient that runs away with an error to match.
    if not fit.converged or not np.isfinite(error) or abs(estimate) > 20:
        return UNDEFINED._replace(n=n)
    low, high = (float(np.exp(estimate + sign * 1.959964 * error)) for sign in (-1, 1))
    return Ratio(float(np.exp(estimate)), low, high, float(2 * ndtr(-abs(estimate) / error)), n)


def _design(covariates: pd.DataFrame) -> pd.DataFrame:
    """Covariates with a constant; those that do not vary are dropped."""
    varying = [name for name in covariates if not _constant(covariates[name])]
    return covariates[varying].astype(float).assign(constant=1.0).reset_index(drop=True)


def _constant(values: Any) -> bool:
    return len(np.unique(np.asarray(values))) < 2


def _statsmodels() -> Any:
    return optional(
        "statsmodels.api", "adjusted ratios need statsmodels, which is not installed; run `pip install statsmodels`."
    )
