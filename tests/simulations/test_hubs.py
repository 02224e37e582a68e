"""Hubs where there are none but by exposure, and where some were planted."""

import numpy as np
import pytest
from nulls import exposed

from circuits import random_circuit, uniform
from scircuit.analysis.hubs import hubs

pytestmark = pytest.mark.slow


def test_exposure_makes_no_hub():
    """Sources of early layers reach more layers, targets of late ones are reached by more sources."""
    rng = np.random.default_rng(0)
    found = {name: [] for name in ("gini_out", "gini_in")}
    for i in range(40):
        for name, answers in found.items():
            answers.append(exposed(rng, i, name))
    for answers in found.values():
        p = [answer.p_value for answer in answers]
        assert uniform(p)
        assert uniform([1 - value for value in p])
        gap = np.mean([answer.estimate - answer.null for answer in answers])
        assert abs(gap) < 0.015


def test_planted_hubs_are_seen():
    rng = np.random.default_rng(1)
    result = hubs(random_circuit(rng, source_sd=0.7, target_sd=0.7), draws=100)
    for name in ("gini_out", "gini_in"):
        assert result[name].p_value <= 0.01
        assert result[name].low > result[name].null
