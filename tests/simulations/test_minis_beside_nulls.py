"""Both packaged models where nothing was learnt, and with paths planted in them: slow, whole runs."""

from dataclasses import replace

import pandas as pd
import pytest

from scircuit._packaged import PACKAGED
from scircuit.analysis.registry import analyze
from scircuit.runs.audit import audit
from scircuit.runs.controls import CONTROLS, OWN, controls
from scircuit.runs.demo import demo_config
from scircuit.runs.positive_control import positive_control
from scircuit.runs.stages import run

NOMINAL = 0.05
"""Share of false edges among specific ones that the rule allows."""


def small(name, folder):
    config = demo_config(name, folder)
    return replace(
        config,
        cells=replace(config.cells, n=240),
        features=replace(config.features, control_draws=0, pair_cells=0, coactivation=False),
        sources=replace(config.sources, n=3, layers=(0, 3)),
        trace=replace(config.trace, n_cells=20, n_random=4),
        confirmation=replace(config.confirmation, n_cells=0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGED)
def test_an_untrained_copy_has_no_more_specific_edges_than_the_rule_allows(name, tmp_path, monkeypatch):
    untrained = {control: how for control, how in CONTROLS.items() if how[1] == "none"}
    monkeypatch.setattr("scircuit.runs.controls.CONTROLS", untrained)
    config = small(name, tmp_path)
    run(config, until="analysis")
    table = pd.read_parquet(controls(config, n_steps=20))
    rate = table.pivot_table("estimate", "control", "number", sort=False)
    for control in untrained:
        specific, sizeable = (rate.loc[control, f"{grade} edges per 1,000 tests"] for grade in ("specific", "sizeable"))
        assert specific <= NOMINAL * sizeable, control
    assert analyze("controls", config.out)["specific_edges_per_1000_tests"].n > 0
    assert rate.index[0] == OWN
    assert {item.topic: item.verdict for item in audit(config.out)}["null"] in ("weak", "answered")


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGED)
def test_larger_paths_are_found_more_often(name, tmp_path):
    """Whatever grade: decoys decide whether any is specific, and on the small models none need be."""
    config = small(name, tmp_path)
    run(config, until="analysis")
    paths = pd.read_parquet(positive_control(config, doses=(0.0, 0.3, 3.0), turns=5))
    sizeable = paths["grade"].isin(["sizeable", "specific"]).groupby(paths["dose"]).mean()
    assert sizeable.is_monotonic_increasing, sizeable
    assert sizeable[3.0] - sizeable[0.0] > 0.3
    planted = paths[paths["dose"] > 0]
    assert (planted["realised"] / planted["dose"]).median() == pytest.approx(1, abs=0.25)
