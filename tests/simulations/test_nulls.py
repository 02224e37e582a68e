"""Where there is nothing to find, no question finds it more often than its level says."""

import pytest
from null import Null, drawn
from nulls import NULLS

from circuits import uniform

pytestmark = pytest.mark.slow
MOST_DRAWS = 60
"""Enough to see a level that is doubled; the page of calibration is drawn with more."""


@pytest.mark.parametrize("null", NULLS, ids=[f"{null.question}-{i}" for i, null in enumerate(NULLS)])
def test_p_is_no_smaller_than_its_level_says(null: Null) -> None:
    fewer = null._replace(n_draws=min(null.n_draws, MOST_DRAWS))
    # Of a dozen sources, t on their means misses a little more than it says; the page of calibration says how much.
    assert uniform(drawn(fewer), errors=3.5 if "6 sources" in null.data else 2.0)
