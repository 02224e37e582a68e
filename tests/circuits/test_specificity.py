"""Edges that beat decoys: the score by hand, the competition by hand, and its rate where nothing is to be found."""

import numpy as np
import pandas as pd
import pytest

from scircuit.circuits.grades import at_least, graded, headline
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.size import sizes
from scircuit.circuits.specificity import held_out, merge_scales, q_specific, scores

ANY_SIZE = EdgeRule(min_abs_d=0, min_consistency=0, max_q=None, min_nonzero=0, min_effect_sd=0.0)


def made_of(effects, n_targets):
    what = ["source_layer", "source_feature", "target_layer", "kind", "draw"]
    return effects[what].drop_duplicates().assign(n_tests=n_targets, n_cells=50)


def traced(rng, n_sources=20, n_targets=60, n_draws=8, drives=(), noise=0.1):
    """Effects of sources and decoys: u = c + noise for all, and what is driven on top; every test is retained."""
    rows = []
    for source in range(n_sources):
        norm = rng.uniform(0.5, 4)
        for draw in range(n_draws + 1):
            c = rng.normal(size=n_targets) / np.sqrt(40)
            u = c + noise * rng.normal(size=n_targets) / np.sqrt(40)
            if draw == 0:
                for target, drive in drives:
                    u[target] += drive
            rows.append(
                pd.DataFrame(
                    {"source_layer": 0, "source_feature": source, "target_layer": 1, "target_feature": range(n_targets),
                     "kind": "latent" if draw == 0 else "radial", "draw": draw, "mean_delta": u * norm,
                     "push_norm": norm, "push_weight": c * norm}
                )
            )  # fmt: skip
    effects = pd.concat(rows, ignore_index=True)
    effects = effects.assign(ci_low=effects["mean_delta"] - 1e-3, ci_high=effects["mean_delta"] + 1e-3)
    return effects.assign(clean_mean=1.0, clean_sd=1.0)


def scales_of(effects):
    decoys = effects[(effects["kind"] != "latent") & (effects["draw"] % 4 != 0)]
    u, c = (decoys[name] / decoys["push_norm"] for name in ("mean_delta", "push_weight"))
    ends = ["source_layer", "target_layer", "target_feature"]
    table = decoys[ends].assign(n_decoys=1, sum_uu=u**2, sum_uc=u * c, sum_cc=c**2)
    return table.groupby(ends, as_index=False).sum()


def test_the_score_by_hand():
    """A latent against three decoys: the scale of u, the line through the origin, and what it leaves."""
    u, c = np.array([0.9, 0.2, -0.1, 0.3]), np.array([0.1, 0.25, -0.1, 0.2])
    effects = traced(np.random.default_rng(0), n_sources=1, n_targets=1, n_draws=3)
    effects = effects.assign(mean_delta=2 * u, push_norm=2.0, push_weight=2 * c)
    score = scores(effects, scales_of(effects))
    slope = (u[1:] @ c[1:]) / (c[1:] @ c[1:])
    left = ((u[1:] - slope * c[1:]) ** 2).sum()
    expected = max(0.9 / np.sqrt((u[1:] ** 2).mean()), abs(0.9 - slope * 0.1) / np.sqrt(left / 2))
    np.testing.assert_allclose(score[0], expected, rtol=1e-9)
    assert np.isnan(score[1:]).all(), "each decoy stands against the two others, which are no scale"


def test_a_decoy_is_scored_on_the_others_alone():
    effects = traced(np.random.default_rng(1), n_sources=2, n_targets=3, n_draws=3)
    own = scores(effects, scales_of(effects))
    row = effects.index[(effects["source_feature"] == 1) & (effects["draw"] == 2) & (effects["target_feature"] == 2)][0]
    without = effects.drop(index=row)
    as_latent = effects.loc[[row]].assign(kind="latent", draw=0)
    np.testing.assert_allclose(own[row], scores(as_latent, scales_of(without))[0], rtol=1e-9)


def test_targets_without_a_visible_encoder_are_judged_by_size_alone():
    effects = traced(np.random.default_rng(2), n_sources=1, n_targets=2).assign(push_weight=np.nan)
    scales = scales_of(effects).assign(sum_uc=np.nan, sum_cc=np.nan)
    u = (effects["mean_delta"] / effects["push_norm"]).to_numpy()
    decoys = u[2:].reshape(-1, 2)[[0, 1, 2, 4, 5, 6]]
    expected = np.abs(u[:2]) / np.sqrt((decoys**2).mean(axis=0))
    np.testing.assert_allclose(scores(effects, scales)[:2], expected, rtol=1e-9)


def test_a_target_that_answers_no_decoy_is_beyond_every_scale():
    effects = traced(np.random.default_rng(3), n_sources=1, n_targets=1)
    effects.loc[effects["kind"] != "latent", "mean_delta"] = 0.0
    assert scores(effects, scales_of(effects))[0] == np.inf


def test_the_competition_by_hand():
    """Latents score 5, 4, 1; decoys 3 and .5, twice as many tests: (1 + 0)/2/2, (1 + 0)/2/2, (1 + 1)/3/2."""
    effects = pd.DataFrame(
        {"source_layer": 0, "source_feature": 0, "target_layer": 1, "target_feature": range(6),
         "kind": ["latent"] * 4 + ["radial"] * 2, "draw": [0] * 4 + [1, 2]}
    )  # fmt: skip
    made = pd.DataFrame(
        {"source_layer": 0, "source_feature": 0, "target_layer": 1, "kind": ["latent", "radial", "radial", "radial"],
         "draw": [0, 1, 2, 4], "n_tests": [100, 100, 100, 100]}
    )  # fmt: skip
    score = np.array([5.0, 4.0, 1.0, 9.0, 3.0, 0.5])
    passes = np.array([True, True, True, False, True, True])
    np.testing.assert_allclose(q_specific(effects, score, passes, made), [0.25, 0.25, 1 / 3, 1.0, 0.25 + 1 / 12, 1.0])


def test_planted_drives_are_found_and_others_are_not():
    rng = np.random.default_rng(4)
    effects = traced(rng, drives=[(0, 0.8), (1, -0.8), (2, 0.3)])
    found = graded(effects, made_of(effects, 60), ANY_SIZE, scales_of(effects)).edges
    own = found[found["kind"] == "latent"]
    called = own[at_least(own, "specific")]
    assert set(called["target_feature"]) <= {0, 1, 2} or (called["target_feature"] > 2).mean() < 0.05
    recall = called.groupby("target_feature").size().reindex([0, 1, 2]) / 20
    assert recall[:2].min() == 1.0
    assert recall[2] > 0.9, "small, and still more than its direction explains"


@pytest.mark.parametrize("heavy", [False, True])
def test_nothing_is_specific_where_latents_are_pushes_like_any_other(heavy):
    """Whatever the tails: in 40 traces without a drive, hardly any edge, and held-out decoys fare alike."""
    specific, by_decoys = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        effects = traced(rng, n_sources=8, n_targets=40)
        if heavy:
            effects["mean_delta"] *= np.exp(rng.normal(size=len(effects)))
        tests = made_of(effects, 40)
        judged = graded(effects, tests, ANY_SIZE, scales_of(effects)).edges
        own, decoys = judged[judged["kind"] == "latent"], judged[judged["kind"] != "latent"]
        row = headline(own, decoys, tests, "specific")[-1]
        specific.append(row["n_edges"])
        by_decoys.append(row["n_by_decoys"])
    assert np.mean(np.array(specific) > 0) <= 0.15, "false-discovery rate with nothing to discover"
    assert abs(np.mean(specific) - np.mean(by_decoys)) < 2


def test_sizes_by_hand():
    effects = pd.DataFrame(
        {"mean_delta": [-1.0, 0.5, 0.1, 1.0], "ci_low": [-1.2, 0.3, -0.1, 0.9], "ci_high": [-0.8, 0.7, 0.3, 1.1],
         "clean_mean": [4.0, 2.0, 1.0, 0.0], "clean_sd": [2.0, 1.0, 1.0, 0.0]}
    )  # fmt: skip
    found = sizes(effects)
    np.testing.assert_allclose(found["effect_sd"], [-0.5, 0.5, 0.1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found["effect_sd_near"], [0.4, 0.3, -0.1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found["share_lost"], [0.25, -0.25, -0.1, np.nan], rtol=1e-6)
    assert EdgeRule(min_effect_sd=0.35).sizeable(found).tolist() == [True, False, False, False]


def test_every_fourth_draw_is_held_out():
    table = pd.DataFrame({"kind": ["latent"] + ["radial"] * 5, "draw": [0, 1, 2, 3, 4, 8]})
    assert held_out(table).tolist() == [False, False, False, False, True, True]


def test_scales_of_blocks_add_up():
    effects = traced(np.random.default_rng(5), n_sources=4, n_targets=3)
    halves = [scales_of(effects[effects["source_feature"] < 2]), scales_of(effects[effects["source_feature"] >= 2])]
    pd.testing.assert_frame_equal(merge_scales(halves), scales_of(effects))


def test_a_trace_without_decoys_tells_no_specific_edge():
    effects = traced(np.random.default_rng(6), n_draws=0)
    assert graded(effects, made_of(effects, 60), ANY_SIZE, None).grade == "sizeable"
    assert graded(effects.drop(columns=["ci_low", "ci_high"]), made_of(effects, 60), ANY_SIZE, None).grade == (
        "reproducible"
    )
