"""The edge rule: one place, whatever holds the tests."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scircuit.circuits.rule import DEFAULT, EdgeRule, unskewed
from scircuit.errors import ScircuitError
from scircuit.published.definitions import PAPER
from scircuit.stats.skew import unskewed_p


def one(**columns):
    base = {"cohens_d": 1.0, "n_cells": 100, "n_nonzero": 50, "n_pos": 50, "n_neg": 0, "p_value": 1e-9}
    return pd.DataFrame([{**base, **columns}])


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({}, True),
        ({"cohens_d": -1.0}, True),
        ({"cohens_d": 0.5}, False),
        ({"cohens_d": np.inf}, True),
        ({"n_pos": 35, "n_neg": 15}, False),  # 0.7 exactly
        ({"n_pos": 36, "n_neg": 14}, True),
        ({"p_value": 0.05}, False),
        ({"n_nonzero": 9, "n_pos": 9}, False),
        ({"n_nonzero": 10, "n_pos": 10}, True),
        ({"n_nonzero": 0, "n_pos": 0}, False),
    ],
)
def test_every_threshold_is_strict_and_counts_are_at_least(changed, passes):
    assert DEFAULT.passes(one(**changed)).tolist() == [passes]


def test_silent_cells_abstain_or_count_as_falls():
    tests = one(n_pos=25, n_neg=25)
    assert DEFAULT.agreement(tests).tolist() == [0.5]
    assert PAPER.agreement(tests).tolist() == [0.75]
    assert [votes.tolist() for votes in PAPER.votes(tests)] == [[75.0], [100.0]]


def test_a_test_at_a_threshold_is_judged_alike_before_and_after_it_was_stored():
    before = one(cohens_d=np.float64(np.float32(0.7)) + 1e-12)
    after = before.astype({"cohens_d": "float32"})
    rule = EdgeRule(min_abs_d=float(np.float32(0.7)))
    assert before["cohens_d"].item() > rule.min_abs_d
    assert rule.passes(before).tolist() == rule.passes(after).tolist() == [False]


def test_arrays_of_any_shape_and_tables_are_judged_alike():
    table = pd.concat([one(cohens_d=d, n_pos=n, n_neg=50 - n) for d in (0.2, 0.9) for n in (30, 45)], ignore_index=True)
    arrays = {name: table[name].to_numpy().reshape(2, 2) for name in table if name != "p_value"}
    rule = EdgeRule(max_q=None)
    np.testing.assert_array_equal(rule.passes(arrays).ravel(), rule.passes(table))
    assert rule.passes(table).tolist() == [False, False, False, True]


def test_tests_without_a_response_are_no_part_of_the_family():
    tests = pd.concat([one(p_value=0.02), one(n_nonzero=0, n_pos=0, p_value=1.0)], ignore_index=True)
    assert DEFAULT.q_values(tests).tolist() == [0.02, 1.0]
    assert DEFAULT.q_values(tests, n_tests=10).tolist() == [0.2, 1.0]


def test_an_unknown_word_for_consistency_is_refused():
    with pytest.raises(ScircuitError, match="nonzero, zero_as_negative"):
        EdgeRule(consistency="majority")


def responses(values):
    """The row of a trace for one test."""
    x = np.asarray(values, dtype=np.float64)
    some = x[x != 0]
    return one(
        n_cells=len(x), n_nonzero=len(some), n_pos=(some > 0).sum(), n_neg=(some < 0).sum(), mean_delta=x.mean(),
        sd_delta=x.std(ddof=1), cohens_d=x.mean() / x.std(ddof=1), skewness=stats.skew(some),
    )  # fmt: skip


def test_skewed_responses_are_judged_by_the_larger_p_over_the_cells_that_respond():
    x = np.r_[-np.random.default_rng(0).gamma(8, 0.1, 30), 0.9, 1.1, np.zeros(10)]
    some, rule = x[x != 0], EdgeRule(allow_for_skew=True)
    expected = unskewed_p(len(some), some.mean(), some.std(ddof=1), stats.skew(some))
    row = responses(x)
    np.testing.assert_allclose(rule.p_values(row), expected, rtol=1e-9)
    assert EdgeRule().p_values(row).tolist() == [1e-9]
    tail_along = responses(-x * np.sign(x.mean()) * np.sign(x))
    assert rule.p_values(tail_along).tolist() == [max(1e-9, float(unskewed(tail_along)[0]))]


def test_units_have_their_own_p_for_skewed_responses():
    """What the trace took over donors stands, whatever tail the cells have."""
    rule, row = EdgeRule(allow_for_skew=True), responses(np.random.default_rng(0).gamma(8, 0.1, 30))
    assert rule.p_values(row.assign(p_unskewed=0.3)).tolist() == [0.3]
    assert rule.p_values(row.assign(n_nonzero=0, p_unskewed=np.nan)).tolist() == [1.0]


def test_skewness_that_was_not_measured_is_refused():
    rule = EdgeRule(allow_for_skew=True)
    for row in (one(), one(skewness=np.nan, mean_delta=1.0, sd_delta=1.0)):
        with pytest.raises(ScircuitError, match="did not keep them"):
            rule.passes(row)
    assert not rule.passes(one(skewness=np.nan, mean_delta=0.0, sd_delta=0.0, n_nonzero=0, n_pos=0, p_value=1.0)).any()
