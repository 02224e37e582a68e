import numpy as np
import pytest
from scipy import stats

from scircuit.stats.skew import skewness, unskewed_p


def test_skewness_is_that_of_scipy_group_by_group():
    rng = np.random.default_rng(0)
    code = rng.integers(0, 4, 200)
    x = rng.exponential(1, 200)
    code[code == 2] = 1
    x[code == 3] = 0.1
    found = skewness(x, code, 4)
    np.testing.assert_allclose(found[:2], [stats.skew(x[code == g]) for g in (0, 1)])
    assert np.isnan(found[2])
    assert found[3] == 0


def test_without_skewness_it_is_nearly_t_and_by_hand_with():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0]) - 1.5
    u = x.mean() / x.std(ddof=1)
    plain = unskewed_p(5, x.mean(), x.std(ddof=1), 0.0)
    assert plain == pytest.approx(stats.ttest_1samp(x, 0).pvalue)
    g = 0.7
    t = np.sqrt(5) * (u + g * u**2 / 3 + g**2 * u**3 / 27 + g / 30)
    assert unskewed_p(5, x.mean(), x.std(ddof=1), g) == pytest.approx(2 * stats.t.sf(t, 4))


def test_a_tail_away_from_the_mean_costs_and_one_along_it_does_not():
    away, none, along = unskewed_p(20, [-1.0] * 3, [1.0] * 3, [2.0, 0.0, -2.0])
    assert away > 10 * none
    assert along < none


def test_equal_values_and_single_ones():
    assert unskewed_p([10, 1, 10], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0], 0.0).tolist() == [2**-9, 1.0, 1.0]
