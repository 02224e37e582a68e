"""Donors and skewed responses: what breaks the test over cells, and what holds."""

import numpy as np
import pytest
from responses import SHAPES, donors, mean_of, skewed

pytestmark = pytest.mark.slow
DRAWS = 5


@pytest.mark.parametrize(("n_donors", "icc"), [(6, 0.1), (8, 0.3), (12, 0.0), (20, 0.3)])
def test_donors_as_units_hold_the_level_and_their_intervals_cover(n_donors, icc):
    rng = np.random.default_rng(0)
    found = mean_of([donors(rng, n_donors, icc) for _ in range(DRAWS)])
    own = found.loc["donors"]
    assert own["size"] == pytest.approx(0.05, abs=0.01)
    assert own["fdr"] <= 0.08
    assert own["coverage"] == pytest.approx(0.95, abs=0.01)
    if icc:
        assert found.loc["cells", "fdr"] > 0.5
        assert found.loc["cells", "coverage"] < 0.8


@pytest.mark.parametrize("n_cells", [50, 200])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_rule_that_allows_for_skew_calls_fewer_targets_without_effect(shape, n_cells):
    rng = np.random.default_rng(1)
    found = mean_of([skewed(rng, shape, n_cells) for _ in range(DRAWS)])
    plain, careful = found.loc["sign-flip"], found.loc["allowing for skew"]
    assert careful["size"] <= 0.06
    assert careful["fdr"] <= (0.12 if shape == "lognormal" else 0.08)
    assert careful["power"] >= (0.95 if shape == "normal" else 0.45)
    if shape != "normal":
        assert plain["fdr"] > 1.5 * careful["fdr"]
