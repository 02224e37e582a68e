import numpy as np
import pandas as pd
import pytest

from scircuit.analysis.answers import Answers
from scircuit.analysis.positive_control import positive_control, seen
from scircuit.circuits.grades import SEEN, nothing_specific
from scircuit.errors import ScircuitError
from scircuit.stats.shares import wilson


def paths(hits, n=20, strictest="specific"):
    """`n` planted paths per dose, of which `hits[dose]` became specific and as many again sizeable."""
    rows = []
    for dose, k in hits.items():
        grades = ["specific"] * k + ["sizeable"] * min(k, n - k)
        rows += [
            (0, i, 1, i, dose, grade, strictest, dose) for i, grade in enumerate(grades + [""] * (n - len(grades)))
        ]
    names = ["source_layer", "source_feature", "target_layer", "target_feature"]
    return pd.DataFrame(rows, columns=[*names, "dose", "grade", "strictest", "effect_sd"])


def test_the_smallest_dose_by_hand():
    result = positive_control(paths({0.0: 1, 0.1: 4, 0.5: 16, 1.0: 20}))
    assert result["smallest_specific"].estimate == 0.5
    assert result["smallest_sizeable"].estimate == 0.5
    assert np.isnan(positive_control(paths({0.0: 0, 1.0: 10}))["smallest_specific"].estimate)
    found = result["recall_specific_0.5"]
    assert (found.estimate, found.null, found.n) == (0.8, 0.05, 20)
    assert (found.low, found.high) == pytest.approx(wilson(16, 20))


def test_a_share_that_falls_back_is_not_reached():
    result = positive_control(paths({0.0: 0, 0.1: 18, 0.5: 4, 1.0: 20}))
    assert result["smallest_specific"].estimate == 1.0


def test_only_grades_that_the_run_tells_are_asked():
    result = positive_control(paths({0.0: 0, 1.0: 20}, strictest="sizeable"))
    assert set(result.table["grade"]) == {"sizeable", "reproducible"}
    with pytest.raises(ScircuitError, match="fewer than 5 planted paths"):
        positive_control(paths({0.0: 0, 1.0: 2}, n=4))


def test_wilson_by_hand():
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)
    assert np.isnan(wilson(0, 0)).all()


def test_that_nothing_was_found_stands_beside_what_could_have_been(tmp_path):
    nothing = {"grades": [{"grade": "specific", "n_edges": 0}]}
    assert seen(tmp_path) == SEEN
    assert nothing_specific(nothing)[0].endswith(SEEN)
    answers = Answers(tmp_path / "analysis", {"run_id": "r"})
    answers.add(positive_control(paths({0.0: 0, 0.5: 20, 2.0: 20})))
    answers.write()
    assert "as specific from 0.5 clean SD" in seen(tmp_path)
    answers = Answers(tmp_path / "analysis", {"run_id": "r"})
    answers.add(positive_control(paths({0.0: 0, 2.0: 2})))
    answers.write()
    assert "even at 2 clean SD" in seen(tmp_path)
