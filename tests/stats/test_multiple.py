import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg, holm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array)


@given(p_values)
def test_agrees_with_scipy_and_statsmodels(p):
    q = benjamini_hochberg(p)
    np.testing.assert_allclose(q, false_discovery_control(p), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(q, multipletests(p, method="fdr_bh")[1], rtol=1e-12, atol=1e-300)


@given(p_values, st.floats(0.01, 0.9))
def test_dropping_large_p_changes_no_discovery(p, level):
    kept = p <= level
    whole = benjamini_hochberg(p)[kept]
    part = benjamini_hochberg(p[kept], n_tests=len(p))
    np.testing.assert_array_equal(part < level, whole < level)
    np.testing.assert_allclose(part[part < level], whole[part < level], rtol=1e-12)


def test_empty_family():
    assert benjamini_hochberg(np.array([]), n_tests=10).shape == (0,)


@pytest.mark.parametrize(
    ("p", "n_tests", "word"),
    [
        ([0.1, np.nan], None, "NaN"),
        ([0.1, 1.2], None, r"\[0, 1\]"),
        ([0.1, 0.2], 1, "n_tests"),
        ([[0.1]], None, "shape"),
    ],
)
def test_refuses_what_is_no_family(p, n_tests, word):
    with pytest.raises(ScircuitError, match=word):
        benjamini_hochberg(np.array(p), n_tests)


@given(p_values)
def test_holm_equals_statsmodels(p):
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_what_was_not_tested_is_not_counted():
    adjusted = holm([0.01, np.nan, 0.04])
    np.testing.assert_allclose(adjusted[[0, 2]], [0.02, 0.04])
    assert np.isnan(adjusted[1])
