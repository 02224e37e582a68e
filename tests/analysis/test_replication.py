"""Replication: planted edges come back, noise does not, and the slope tells how much was chance."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scircuit.analysis.replication import replication
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg


def simulate(true_d: np.ndarray, n: int = 40, seed: int = 0, threshold: float | None = None) -> pd.DataFrame:
    """Edges measured in `n` cells and in `n` others; with a threshold only those found beyond it."""
    rng = np.random.default_rng(seed)
    d, p = [], []
    for _ in range(2):
        cells = rng.normal(true_d[:, None], 1, (len(true_d), n))
        d.append(cells.mean(axis=1) / cells.std(axis=1, ddof=1))
        p.append(stats.ttest_1samp(cells, 0, axis=1).pvalue)
    table = pd.DataFrame(
        {
            "source_layer": 0, "source_feature": np.arange(len(true_d)) // 10, "target_layer": 1,
            "target_feature": np.arange(len(true_d)), "n_cells": n, "n_nonzero": n, "cohens_d": d[1],
            "p_value": p[1], "discovery_d": d[0],
        }
    )  # fmt: skip
    return table if threshold is None else table[table["discovery_d"].abs() > threshold].reset_index(drop=True)


def test_real_edges_come_back_as_large_as_they_were() -> None:
    signs = np.where(np.arange(400) % 2, 1.0, -1.0)
    table = simulate(1.5 * signs)
    result = replication(table, draws=300, null_draws=200)
    assert result.estimate > 0.99
    significant = benjamini_hochberg(table["p_value"].to_numpy()) < 0.05
    assert result.null == pytest.approx(table.loc[significant, "p_value"].max() / 2)
    agreement = result["sign_agreement"]
    assert agreement.null == pytest.approx(0.5, abs=0.05)  # signs are balanced
    assert agreement.p_value < 0.01
    slope = result["slope"]
    # Regression dilution by the noise of discovery is all that is missing from 1: var 1/n + d^2/2n against d^2.
    assert slope.estimate == pytest.approx(1.5**2 / (1.5**2 + (1 + 1.5**2 / 2) / 40), abs=0.02)
    assert slope.low < slope.estimate < slope.high
    assert abs(slope.null) < 0.1


def test_chance_findings_do_not() -> None:
    """Under the null of no effect at all, what passed a threshold once is not found again, and the slope is 0."""
    table = simulate(np.zeros(20_000), n=20, threshold=0.5)
    assert len(table) > 300
    result = replication(table, draws=300, null_draws=200)
    assert result.estimate < 0.01
    assert result["slope"].low < 0 < result["slope"].high
    assert result["sign_agreement"].low < 0.5 < result["sign_agreement"].high
    assert result["r"].p_value > 0.01


def test_weak_edges_were_found_too_large() -> None:
    weak = replication(simulate(np.full(4000, 0.3), n=20, threshold=0.5), draws=200, null_draws=50)["slope"]
    strong = replication(simulate(np.full(400, 1.5), n=20, threshold=0.5), draws=200, null_draws=50)["slope"]
    assert weak.high < 0.6 < 0.9 < strong.low


def test_numbers_equal_scipy() -> None:
    table = simulate(np.random.default_rng(4).normal(0, 1, 120))
    table.loc[:3, ["n_nonzero", "cohens_d"]] = [2, 0.1]
    result = replication(table, draws=50, null_draws=20)
    q = benjamini_hochberg(table["p_value"].to_numpy())
    again = (q < 0.05) & (np.sign(table["cohens_d"]) == np.sign(table["discovery_d"]))
    assert result.estimate == pytest.approx(again.mean())
    assert (result.table["replicated"] == again).all()
    used = table[table["n_nonzero"] >= 6]
    line = stats.linregress(used["discovery_d"], used["cohens_d"])
    assert result["r"].estimate == pytest.approx(line.rvalue)
    assert result["slope_affine"].estimate == pytest.approx(line.slope)
    x, y = used["discovery_d"], used["cohens_d"]
    assert result["slope"].estimate == pytest.approx((x * y).sum() / (x * x).sum())
    assert result["slope"].n == len(used) == 116
    assert result["testable_share"].estimate == pytest.approx(116 / 120)
    assert result["mean_d"].estimate == pytest.approx((np.sign(x) * y).mean())


def test_intervals_cover() -> None:
    """The 95 % interval of the slope holds the large-sample value about as often as it says."""
    truth = replication(simulate(np.tile([-1.0, 1.0], 20_000), seed=99), draws=2, null_draws=1)["slope"].estimate
    hits = 0
    for seed in range(60):
        slope = replication(simulate(np.tile([-1.0, 1.0], 200), seed=seed), draws=200, null_draws=1, seed=seed)["slope"]
        hits += slope.low <= truth <= slope.high
    assert hits >= 50


def test_the_null_keeps_what_layer_pairs_have_in_common() -> None:
    """Two layer pairs of opposite sign: exchanging within them leaves every sign in place."""
    table = simulate(np.repeat([-1.5, 1.5], 100))
    table["target_layer"] = np.repeat([1, 2], 100)
    result = replication(table, draws=50, null_draws=50)
    assert result["sign_agreement"].null == 1


def test_the_null_of_the_share_is_what_edges_without_effect_reach() -> None:
    """Half of the edges have none: those called found again among them are as many as the null says."""
    shares, nulls = [], []
    for seed in range(40):
        table = simulate(np.repeat([1.5, 0.0], 300), seed=seed)
        result = replication(table, draws=2, null_draws=1)
        shares.append(result.table["replicated"].to_numpy()[300:].mean())
        nulls.append(result.null)
    assert np.mean(shares) == pytest.approx(np.mean(nulls), abs=0.004)


def test_infinite_d_and_silent_sources_are_counted() -> None:
    table = simulate(np.full(40, 1.0))
    table.loc[0, "discovery_d"] = np.inf
    table.loc[1:4, ["n_cells", "n_nonzero", "cohens_d", "p_value"]] = [0, 0, 0.0, 1.0]
    result = replication(table, draws=50, null_draws=20)
    assert result.headline.n == 40
    assert result["slope"].n == 35
    assert result["sign_agreement"].n == 36
    assert not result.table["replicated"].iloc[1:5].any()


def test_refusals() -> None:
    table = simulate(np.full(20, 1.0))
    with pytest.raises(ScircuitError, match="lacks discovery_d; run `scircuit trace`"):
        replication(table.drop(columns="discovery_d"))
    with pytest.raises(ScircuitError, match="4 edges were measured again; at least 5"):
        replication(table.iloc[:4])
    with pytest.raises(ScircuitError, match="alpha is 1"):
        replication(table, alpha=1.0)
