"""Paths planted in a model whose circuits are known: their doses are what they say, and larger ones are found more."""

import numpy as np
import pandas as pd
import pytest

from scircuit.circuits.schema import ENDS
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.stream import residuals
from scircuit.tracing.planted import N_LATENTS, N_LAYERS, planted
from scircuit.tracing.planting import PlantedPaths, adjusted, draw_paths, survey
from scircuit.tracing.recovery import bare_circuit
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace_setup

DOSES = (0.0, 0.1, 0.3, 1.0)
EXACT = TraceSettings(engine="exact")
NONE = pd.DataFrame(columns=ENDS)


@pytest.fixture(scope="module")
def setup():
    truth = planted(128, seed=0)
    sources = {layer: list(range(N_LATENTS // 2)) for layer in range(N_LAYERS - 1)}
    return Setup.of(truth.model, truth.saes, truth.cells(24), sources, EXACT)


@pytest.fixture(scope="module")
def surveys(setup):
    return {layer: survey(setup, layer) for layer in setup.sources}


def test_a_survey_sees_what_the_tracer_measures(setup, surveys, tmp_path):
    effects = pd.read_parquet(trace_setup(setup, tmp_path) / "effects.parquet")
    own = effects[(effects["kind"] == "latent") & (effects["target_layer"] == effects["source_layer"] + 1)]
    for row in own.itertuples():
        found = surveys[row.source_layer]
        sd = found.clean_sd[found.features.index(row.source_feature), row.target_feature]
        assert sd == pytest.approx(row.clean_sd, rel=1e-3, abs=1e-6)


def test_paths_give_their_doses_and_leave_the_rest_alone(setup, surveys):
    paths = adjusted(setup, draw_paths(surveys, DOSES, 0, 10, np.random.default_rng(0), NONE))
    strong = paths[paths["dose"] >= 0.3]
    assert (strong["realised"] / strong["dose"]).median() == pytest.approx(1, abs=0.15)
    assert not paths[["target_layer", "target_feature"]].duplicated().any()
    model = PlantedPaths(setup.model, paths, setup)
    assert isinstance(model, FoundationModel)
    assert model.fingerprint != setup.model.fingerprint
    batch = setup.cells.batch(np.arange(4))
    nothing = PlantedPaths(setup.model, paths.assign(dose=0.0), setup)
    own, same, other = (residuals(m, batch, [0, 2]) for m in (setup.model, nothing, model))
    assert all((own[layer] == same[layer]).all() for layer in own)
    assert (own[0] == other[0]).all()
    assert (own[2] != other[2]).any()


def test_what_is_known_already_is_not_planted(setup, surveys):
    drawn = draw_paths(surveys, DOSES, 0, 10, np.random.default_rng(0), NONE)
    again = draw_paths(surveys, DOSES, 0, 10, np.random.default_rng(0), drawn[ENDS])
    assert not drawn[ENDS].merge(again[ENDS]).size
    with pytest.raises(ScircuitError, match="no path can be planted"):
        draw_paths(surveys, DOSES, 0, 1000, np.random.default_rng(0), NONE)


def test_turns_give_every_source_another_dose(surveys):
    first, second = (draw_paths(surveys, DOSES, turn, 5, np.random.default_rng(0), NONE) for turn in (0, 1))
    both = first.merge(second, on=ENDS[:2])
    assert len(both)
    assert (both["dose_x"] != both["dose_y"]).all()


@pytest.mark.slow
def test_recall_rises_with_the_dose(setup, surveys, tmp_path):
    """At the strictest grade: nothing where nothing is planted, nearly all at one clean SD."""
    layer, feature = np.divmod(np.arange(N_LAYERS * N_LATENTS), N_LATENTS)
    nodes = pd.DataFrame({"layer": layer, "feature": feature, "label": ""})
    known = bare_circuit(trace_setup(setup, tmp_path / "own"), nodes, EXACT).at("specific").edges[ENDS]
    found = []
    for turn in range(2):
        paths = adjusted(setup, draw_paths(surveys, DOSES, turn, 10, np.random.default_rng(turn), known))
        model = PlantedPaths(setup.model, paths, setup)
        traced = Setup.of(model, setup.saes, setup.cells, setup.sources, EXACT)
        edges = bare_circuit(trace_setup(traced, tmp_path / f"{turn}"), nodes, EXACT).at("specific").edges
        hit = pd.MultiIndex.from_frame(paths[ENDS]).isin(pd.MultiIndex.from_frame(edges[ENDS]))
        found.append(paths.assign(hit=hit))
    recall = pd.concat(found).groupby("dose")["hit"].mean()
    assert recall.is_monotonic_increasing
    assert recall[0.0] <= 0.1
    assert recall[1.0] >= 0.8
