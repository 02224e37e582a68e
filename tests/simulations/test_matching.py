"""Latents of two models: shared ones are matched, and few others."""

import numpy as np
import pytest

from models import two_models
from scircuit.analysis.feature_matching import match_latents

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("n_modules", "n_shared"), [(0, 30), (6, 30), (6, 100)])
def test_shared_latents_are_matched_and_few_others(n_modules, n_shared):
    rng = np.random.default_rng(1)
    power, false = [], []
    for _ in range(20):
        table = match_latents(*two_models(rng, n_modules, n_shared)).table
        right = (table["feature_a"] == table["feature_b"]) & (table["feature_a"] < n_shared)
        power.append(right.sum() / n_shared)
        false.append((~right).sum() / max(len(table), 1))
    assert np.mean(power) > 0.9
    assert np.mean(false) <= 0.05
