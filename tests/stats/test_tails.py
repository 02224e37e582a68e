import numpy as np
import pytest
from scipy import stats

from scircuit.errors import ScircuitError
from scircuit.stats.tails import compare_tails


def ratio(fit, rival):
    row = fit.rivals.set_index("rival").loc[rival]
    return row["log_likelihood_ratio"], row["p_value"]


def test_power_law_is_recovered():
    fit = compare_tails(stats.zipf.rvs(2.5, size=5000, random_state=0))
    assert fit.alpha == pytest.approx(2.5, abs=0.15)
    value, p = ratio(fit, "exponential")
    assert value > 0
    assert p < 0.05


def test_exponential_counts_are_not_called_a_power_law():
    fit = compare_tails(stats.geom.rvs(0.02, size=3000, random_state=0), min_tail=1000)
    value, p = ratio(fit, "exponential")
    assert value < 0
    assert p < 0.05


def test_lognormal_counts_prefer_the_lognormal():
    counts = np.rint(stats.lognorm.rvs(0.6, scale=200, size=3000, random_state=0)).astype(int)
    assert ratio(compare_tails(counts, min_tail=1500), "lognormal")[0] < 0


def test_rival_mass_sums_to_one_on_the_tail():
    from scircuit.stats.tails import _RIVALS, _fit_rival

    tail = stats.geom.rvs(0.2, size=400, random_state=1) + 4
    survival, guess = _RIVALS["exponential"]
    log_mass = _fit_rival(tail, 5, survival, guess(tail))
    # A discretised exponential conditioned on its tail is geometric: its maximum likelihood is closed.
    share = 1 / (tail.mean() - 4)
    np.testing.assert_allclose(log_mass, stats.geom.logpmf(tail - 4, share), atol=1e-3)


def test_a_tail_that_ends_at_once_is_fitted_without_complaint():
    from scircuit.stats.tails import _RIVALS, _fit_rival

    survival, guess = _RIVALS["stretched_exponential"]
    counts = np.full(50, 600)
    np.testing.assert_allclose(_fit_rival(counts, 600, survival, guess(counts)), 0.0, atol=1e-6)


def test_too_few_counts_are_refused():
    with pytest.raises(ScircuitError, match="too few"):
        compare_tails([1, 2, 3])
