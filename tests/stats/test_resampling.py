import numpy as np
import pytest
import scipy
from packaging.version import Version
from scipy import stats

from scircuit.errors import ScircuitError
from scircuit.stats.resampling import (
    cluster_bootstrap,
    clustered_mean,
    clustered_ratio,
    correlation_interval,
    jackknife_interval,
    permutation_p,
    ratio,
    ratio_interval,
    t_p,
    two_way_mean,
)


def test_ratio_interval_agrees_with_scipy_over_clusters():
    rng = np.random.default_rng(0)
    top, bottom = rng.poisson(6, 60).astype(float), rng.poisson(10, 60) + 1.0
    ours = ratio_interval(top, bottom, rng, draws=8000)
    oracle = stats.bootstrap(
        (top, bottom),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=8000,
        **{"rng" if Version(scipy.__version__) >= Version("1.15") else "random_state": rng},
    ).confidence_interval
    assert ours.estimate == pytest.approx(top.sum() / bottom.sum())
    assert ours.n_clusters == 60
    np.testing.assert_allclose([ours.low, ours.high], oracle, rtol=0.02)


def test_interval_covers_the_truth_when_clusters_are_correlated():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        rate = rng.beta(2, 2, 50)
        n = rng.integers(5, 50, 50)
        interval = ratio_interval(rng.binomial(n, rate), n, rng, draws=300)
        covered.append(interval.low <= 0.5 <= interval.high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_grouping_many_clusters_keeps_the_interval():
    """The closed form of a mean: 1.96 standard errors."""
    rng = np.random.default_rng(2)
    x = rng.exponential(1, 20_000)
    interval = ratio_interval(x, np.ones(len(x)), rng)
    assert interval.n_clusters == 20_000
    half = 1.96 * x.std() / np.sqrt(len(x))
    np.testing.assert_allclose([interval.estimate - interval.low, interval.high - interval.estimate], half, rtol=0.12)


def test_one_cluster_has_no_interval_and_empty_ratio_no_value():
    interval = cluster_bootstrap([[1.0, 2.0]], ratio, np.random.default_rng(0))
    assert interval.estimate == 0.5
    assert np.isnan([interval.low, interval.high]).all()
    assert np.isnan(ratio(np.array([1.0, 0.0])))


def test_permutation_p_counts_the_observed_draw():
    null = np.arange(99)
    assert permutation_p(98, null) == 2 / 100
    assert permutation_p(200, null) == 1 / 100
    assert permutation_p(-1, null, "less") == 1 / 100
    assert permutation_p(49, null, "two-sided") == 1.0
    with pytest.raises(ScircuitError, match="alternative"):
        permutation_p(1, null, "both")


def test_level_and_shape_are_checked():
    with pytest.raises(ScircuitError, match="level"):
        cluster_bootstrap([[1.0, 2.0]], ratio, np.random.default_rng(0), level=95)
    with pytest.raises(ScircuitError, match="shape"):
        cluster_bootstrap([1.0, 2.0], ratio, np.random.default_rng(0))


def test_a_mean_over_crossed_groups_covers_what_one_way_clusters_miss():
    """Values share noise by row and by column; p is uniform under the null, one way it is not."""
    rng = np.random.default_rng(3)
    covered, one_way, p = [], [], []
    for _ in range(400):
        kept = rng.random(900) < 0.3
        row, column = (part.ravel()[kept] for part in np.indices((30, 30)))
        values = rng.standard_normal(30)[row] + 2 * rng.standard_normal(30)[column] + rng.standard_normal(kept.sum())
        found = two_way_mean(values, row, column)
        covered.append(found.low <= 0 <= found.high)
        sums, counts = np.bincount(row, values, minlength=30), np.bincount(row, minlength=30)
        alone = ratio_interval(sums, counts, rng, 200)
        one_way.append(alone.low <= 0 <= alone.high)
        p.append(t_p(found, 0.0))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.035)
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(1 - np.mean(covered))
    assert np.mean(one_way) < 0.8


def test_a_mean_over_few_groups_covers():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(5), 6)
    drawn = [clustered_mean(rng.standard_normal(5)[group] + rng.standard_normal(30), group) for _ in range(1500)]
    assert np.mean([found.low <= 0 <= found.high for found in drawn]) == pytest.approx(0.95, abs=0.02)
    values = rng.standard_normal(12)
    alone = clustered_mean(values, np.arange(12))
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    np.testing.assert_allclose([alone.low, alone.high], expected)


def test_a_mean_over_one_group_has_no_interval():
    found = two_way_mean([1.0, 2.0, 3.0], [0, 1, 2], [7, 7, 7])
    assert found.estimate == 2
    assert np.isnan(found.low)
    assert np.isnan(t_p(found, 0.0))


def test_interval_of_a_correlation_is_fishers_where_nothing_is_shared():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 4000))
    y = y + 0.5 * x
    found = correlation_interval(x, y, np.arange(4000), np.arange(4000))
    assert found.estimate == pytest.approx(np.corrcoef(x, y)[0, 1])
    reach = np.arctanh([found.low, found.high]) - np.arctanh(found.estimate)
    np.testing.assert_allclose(reach, np.array([-1.96, 1.96]) / np.sqrt(4000), rtol=0.05)
    group = np.arange(4000) // 100
    shared = correlation_interval(x + 3 * rng.standard_normal(40)[group], y, group, group)
    assert shared.n_clusters == 40
    assert np.isnan(correlation_interval(np.ones(9), y[:9], group[:9], group[:9]).estimate)
    assert np.isnan(correlation_interval(x, 2 * x, group, group).low)


def test_ratio_of_sums_is_the_clustered_mean_of_their_values():
    rng = np.random.default_rng(1)
    group = rng.integers(7, size=200)
    values = rng.standard_normal(200) + rng.standard_normal(7)[group]
    found = clustered_ratio(np.r_[np.bincount(group, values), 0], np.r_[np.bincount(group), 0])
    np.testing.assert_allclose(found, clustered_mean(values, group))
    assert np.isnan(clustered_ratio([3.0], [2.0]).low)
    assert np.isnan(clustered_ratio([0.0], [0.0]).estimate)


def test_intervals_by_jackknife():
    """Of a mean the interval by t; of a ratio over three clusters it covers what it says, as a bootstrap does not."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(7)
    found = jackknife_interval(np.column_stack([values, np.ones(7)]), ratio)
    np.testing.assert_allclose(found[:3], clustered_mean(values, np.arange(7))[:3])
    covered = []
    for _ in range(400):
        bottom = rng.normal(1, 0.3, 3)
        of = jackknife_interval(np.column_stack([0.5 * bottom + rng.normal(0, 0.1, 3), bottom]), ratio)
        covered.append(of.low <= 0.5 <= of.high)
    assert np.mean(covered) > 0.92
    assert np.isnan(jackknife_interval([[1.0, 2.0]], ratio).low)
