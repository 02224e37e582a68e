import numpy as np
import pytest

from scircuit.errors import ScircuitError
from scircuit.stats.effect import hedges


@pytest.mark.parametrize("n", [6, 10, 20, 200])
def test_g_is_unbiased_and_its_interval_covers(n):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((20_000, n)) + 0.8
    d = x.mean(axis=1) / x.std(axis=1, ddof=1)
    result = hedges(d, n)
    assert result.g.mean() == pytest.approx(0.8, abs=0.012)
    assert d.mean() > result.g.mean()
    covered = np.mean((result.low <= 0.8) & (result.high >= 0.8))
    assert covered == pytest.approx(0.95, abs=0.02)


def test_too_few_cells_have_no_g():
    result = hedges([1.0, 1.0, 1.0], [1, 2, 3])
    np.testing.assert_array_equal(np.isnan(result.g), [True, True, False])
    assert np.isnan(result.low[0])
    with pytest.raises(ScircuitError, match="level"):
        hedges([1.0], [10], level=95)
