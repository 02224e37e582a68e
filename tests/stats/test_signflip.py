import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.signflip import (
    MAX_EXACT,
    can_reach,
    exact_p,
    group_sums,
    saddlepoint_p,
    sampled_p,
    screen_p,
    signflip_p,
)


def screen(values):
    return screen_p((values != 0).sum(axis=1), values.sum(axis=1), (values**2).sum(axis=1))


def every_pattern(x):
    sums = [np.dot(s, x) for s in itertools.product([1, -1], repeat=len(x))]
    return np.mean(np.abs(sums) >= abs(np.sum(x)) * (1 - 1e-9) - 1e-12)


small_integers = st.lists(st.integers(-3, 3), min_size=1, max_size=9)


@given(small_integers)
def test_exact_equals_the_loop_over_all_patterns_with_ties_and_zeros(x):
    assert exact_p([np.array(x, float)])[0] == pytest.approx(every_pattern(x))


@pytest.mark.parametrize("m", [2, 5, 10, 13])
def test_exact_equals_scipy(m):
    x = np.random.default_rng(m).standard_t(2, (8, m)) + 0.5
    oracle = [
        stats.permutation_test((row,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue for row in x
    ]
    np.testing.assert_allclose(exact_p(x), oracle, rtol=1e-12)


def test_exact_reaches_the_smallest_p_at_every_size():
    for m in range(2, MAX_EXACT + 1):
        assert exact_p(np.linspace(1, 2, m)[None])[0] == 2.0 ** (1 - m)


@given(small_integers, st.integers(0, 5), st.sampled_from([1e-30, 1e-3, 1e20]))
def test_zeros_and_scale_and_sign_change_nothing(x, n_zeros, scale):
    x = np.array(x, float)
    padded = np.concatenate([x * scale, np.zeros(n_zeros)])[None]
    for test in (exact_p, saddlepoint_p):
        np.testing.assert_allclose(test(padded), test(x[None]), rtol=1e-6)
        np.testing.assert_allclose(test(-padded), test(padded), rtol=1e-9)


def test_screen_is_the_t_test_of_the_nonzero_values():
    x = np.random.default_rng(0).standard_normal((50, 30)) + 0.2
    np.testing.assert_allclose(screen(x), stats.ttest_1samp(x, 0, axis=1).pvalue, rtol=1e-10)


def test_screen_at_the_edges():
    p = screen_p([0, 1, 2, 5, 5, 200], [0, 3, 2, 5, 0, 200], [0, 9, 2, 5, 4, 200])
    np.testing.assert_allclose(p, [1, 1, 0.5, 2**-4, 1, 2.0**-199])
    assert screen_p(np.zeros((2, 3)), 0.0, 0.0).shape == (2, 3)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=15))
def test_no_road_goes_below_the_smallest_attainable_p(x):
    values = np.array([x])
    floor = 2.0 ** (1 - max(np.count_nonzero(values), 1))
    for p in (screen(values), exact_p(values), saddlepoint_p(values)):
        assert floor * (1 - 1e-9) <= p[0] <= 1


@pytest.mark.parametrize("m", [16, 18, 20])
@pytest.mark.parametrize("tail", ["normal", "heavy"])
def test_saddlepoint_follows_the_exact_tail(m, tail):
    rng = np.random.default_rng(m)
    noise = rng.standard_normal((300, m)) if tail == "normal" else rng.standard_t(3, (300, m))
    values = noise + rng.uniform(0, 1.2, (300, 1))
    ratio = saddlepoint_p(values) / exact_p(values)
    assert np.quantile(np.abs(np.log(ratio)), 0.9) < np.log(1.2)
    assert np.abs(np.log(ratio)).max() < np.log(2.1)


def test_saddlepoint_agrees_with_a_long_sampling_far_out():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((12, 100)) + np.linspace(0.25, 0.42, 12)[:, None]
    sampled = sampled_p(values, 400_000, rng)
    seen = sampled > 1e-4
    assert seen.sum() >= 4
    np.testing.assert_allclose(np.log(saddlepoint_p(values)[seen] / sampled[seen]), 0, atol=0.35)
    assert saddlepoint_p(rng.standard_normal((1, 400)) + 1)[0] < 1e-30


def test_saddlepoint_is_exact_where_all_signs_agree():
    values = np.abs(np.random.default_rng(2).standard_normal((5, 60)))
    np.testing.assert_allclose(saddlepoint_p(values), 2.0**-59, rtol=1e-9)


def test_sampling_agrees_with_exact_counting():
    rng = np.random.default_rng(3)
    values = rng.standard_normal((40, 12)) + 0.4
    exact, draws = exact_p(values), 20_000
    error = np.sqrt(exact * (1 - exact) / draws)
    assert (np.abs(sampled_p(values, draws, rng) - exact) < 5 * error + 1e-4).all()


def test_groups_flip_together():
    rng = np.random.default_rng(4)
    donors = np.repeat(["a", "b", "c", "d", "e", "f"], 10)
    values = rng.standard_normal((200, 6))[:, np.repeat(np.arange(6), 10)] + 0.1 * rng.standard_normal((200, 60))
    by_donor = signflip_p(values, rng, groups=donors)
    np.testing.assert_allclose(by_donor, exact_p(group_sums(values, donors)))
    np.testing.assert_allclose(sampled_p(values, 20_000, rng, donors), by_donor, atol=0.03)
    assert (by_donor <= 0.05).mean() < 0.12
    assert (signflip_p(values, rng) <= 0.05).mean() > 0.4


def test_best_road_joins_exact_sampled_and_tail():
    rng = np.random.default_rng(5)
    values = rng.standard_normal((3, 80))
    values[0, 15:] = 0
    values[2] += 2
    p = signflip_p(values, rng, draws=500)
    assert p[0] == exact_p(values[:1])[0]
    assert p[1] >= 1 / 501
    assert p[2] == saddlepoint_p(values[2:])[0] < 1e-10


def draw_null(shape, rng, kind):
    values = rng.standard_normal(shape)
    if kind == "heavy":
        values = rng.standard_t(2, shape)
    if kind == "zeros":
        values *= rng.random(shape) < rng.uniform(0.1, 1, (shape[0], 1))
    return values


@pytest.mark.parametrize("n", [10, 20, 50, 200])
@pytest.mark.parametrize("kind", ["normal", "heavy", "zeros"])
def test_false_discovery_rate_on_null_data_stays_below_nominal(n, kind):
    """All hypotheses null: the FDR is the chance that a family makes any discovery."""
    rng = np.random.default_rng(n)
    families, tests = 200, 60
    values = draw_null((families * tests, n), rng, kind)
    roads = {"screen": screen(values)}
    if n <= 20:
        roads["exact"] = exact_p(values)
    else:
        roads["saddlepoint"] = saddlepoint_p(values)
    for name, p in roads.items():
        found = [(benjamini_hochberg(row) < 0.05).any() for row in p.reshape(families, tests)]
        # 0.1 is three standard errors above the nominal 0.05 with 200 families.
        assert np.mean(found) <= 0.1, name
        assert (p <= 0.05).mean() <= 0.053, name


def test_false_discovery_proportion_beside_real_effects():
    rng = np.random.default_rng(9)
    values = draw_null((4000, 20), rng, "zeros")
    values[:800] += 1.0
    called = benjamini_hochberg(exact_p(values)) < 0.05
    assert called[:800].mean() > 0.3
    assert called[800:].sum() / called.sum() <= 0.06


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: exact_p(np.ones((1, 30))), "30 non-zero"),
        (lambda: exact_p(np.ones(3)), r"\[test, cell\]"),
        (lambda: saddlepoint_p([[1.0, np.nan]]), "NaN"),
        (lambda: sampled_p([[1.0]], 0, np.random.default_rng()), "draws"),
        (lambda: group_sums([[1.0, 2.0]], ["a"]), "groups"),
    ],
)
def test_refusals(call, word):
    with pytest.raises(ScircuitError, match=word):
        call()


@given(arrays(np.float64, st.integers(2, 12), elements=st.floats(-1e3, 1e3)), st.sampled_from([1e-3, 0.01, 0.05, 0.2]))
def test_no_test_that_can_reach_a_level_is_screened_out(x: np.ndarray, level: float) -> None:
    p = exact_p(x[None])[0]
    if p <= level:
        assert can_reach(level, np.count_nonzero(x), x.sum(), (x**2).sum())


def test_one_large_value_beside_small_ones_of_its_sign_is_not_screened_out() -> None:
    """A quantile of t would: its p is .34, that of the sign-flip is 2 / 2**11."""
    x = np.r_[1.0, np.full(10, 1e-3)]
    sums = 11, x.sum(), (x**2).sum()
    assert screen_p(*sums) > 0.3
    assert exact_p(x[None])[0] == 2 / 2**11
    assert can_reach(0.05, *sums)
    assert not can_reach(1e-4, *sums), "2**-10 is the smallest p of 11 values"
    assert not can_reach(0.05, 50, 1.0, 50.0), "z = 0.14"
