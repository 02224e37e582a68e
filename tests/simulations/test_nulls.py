"""Where there is nothing to find, no question finds it more often than its level says."""

import pytest
from null import Null, drawn
from nulls import NULLS

from circuits import uniform

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("null", NULLS, ids=[f"{null.question}-{i}" for i, null in enumerate(NULLS)])
def test_p_is_no_smaller_than_its_level_says(null: Null) -> None:
    assert uniform(drawn(null), errors=2.0)
