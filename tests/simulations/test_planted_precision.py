"""Planted circuits: what is called specific was planted, and what was planted large enough is called."""

import pytest

from scircuit.circuits.rule import EdgeRule
from scircuit.errors import ScircuitError
from scircuit.tracing.planted import N_LATENTS, planted
from scircuit.tracing.recovery import recover
from scircuit.tracing.settings import TraceSettings


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "engine"), [("post", "exact"), ("post", "local"), ("pre", "exact")])
def test_precision_and_recall_of_planted_circuits(norm, engine):
    settings = TraceSettings(engine=engine, accept_approximation=True)
    table = recover(planted(128, norm), 50, settings).table.set_index("grade")
    assert table.loc["reproducible", "precision"] < 0.3, "the rescaling of every latent is reproducible, and nothing"
    assert table.loc["specific", "precision"] >= 0.95
    assert table.loc["specific", "recall"] >= 0.9
    specific = table.loc["specific"]
    assert specific["n_by_decoys"] <= 0.1 * specific["n_edges"]


@pytest.mark.slow
def test_isotropic_decoys_judge_alike():
    table = recover(planted(128), 50, TraceSettings(engine="exact", decoy="random")).table.set_index("grade")
    assert table.loc["specific", "precision"] >= 0.95
    assert table.loc["specific", "recall"] >= 0.85


def test_a_rule_without_decoys_tells_two_grades():
    truth = planted(N_LATENTS + 2)
    settings = TraceSettings(engine="exact", n_random=0)
    found = recover(truth, 12, settings, EdgeRule(max_q_specific=None, min_nonzero=5))
    assert found.table["grade"].tolist() == ["reproducible", "sizeable"]
    assert found.table["precision"].is_monotonic_increasing
    assert found.by_dose["n_planted"].sum() > 0


def test_chains_of_drives_and_a_latent_itself_count_as_planted():
    truth = planted(64)
    one, two, both = truth.drives_between(0, 1), truth.drives_between(1, 2), truth.drives_between(0, 2)
    assert one.diagonal().all()
    assert one.sum() == N_LATENTS + sum(d.block == 1 for d in truth.drives)
    assert (both >= (one | two)).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ScircuitError, match="post, pre"):
        planted(64, "none")
    with pytest.raises(ScircuitError, match="at least 42"):
        planted(32)
