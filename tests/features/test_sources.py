import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scircuit.errors import ScircuitError
from scircuit.features.sources import annotation_score, select_sources


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    n = 200
    table = pd.DataFrame(
        {
            "layer": np.repeat([0, 1], n // 2),
            "feature": np.tile(np.arange(n // 2), 2),
            "n_firings": rng.integers(0, 4, n) * 100,
            "n_terms": rng.integers(0, 5, n),
            "n_libraries": 1,
            "best_q": rng.uniform(1e-9, 0.05, n),
            "top_genes": [["g"] * int(k) for k in rng.integers(5, 21, n)],
        }
    )
    table["frequency"] = table["n_firings"] / 10_000 + rng.uniform(0, 1e-4, n)
    table.loc[table["n_terms"] == 0, ["n_libraries", "best_q"]] = [0, np.nan]
    return table


def test_score_is_the_published_formula():
    table = pd.DataFrame({"n_libraries": [2, 1, 1], "n_terms": [7, 3, 3], "best_q": [1e-5, 0.0, np.nan]})
    assert annotation_score(table).tolist() == pytest.approx([20 + 7 + 5, 10 + 3 + 30, 10 + 3])


def test_annotated_takes_the_best_of_the_pool(features):
    chosen = select_sources(features, "annotated", n=6)
    for layer, part in chosen.table.groupby("layer"):
        pool = []
        for row in features[features["layer"] == layer].itertuples():
            if row.n_firings > 0 and row.n_terms > 0 and row.frequency >= 0.01 and len(row.top_genes) >= 10:
                pool.append((-(10 * row.n_libraries + row.n_terms - np.log10(row.best_q)), row.feature))
        assert set(part["feature"]) == {f for _, f in sorted(pool)[:6]}
    assert chosen.rule == {
        "rule": "annotated", "layers": [0, 1], "n": 6, "min_frequency": 0.01, "min_top_genes": 10
    }  # fmt: skip


def test_all_is_every_live_latent(features):
    chosen = select_sources(features, "all", layers=[1])
    expected = features[(features["layer"] == 1) & (features["n_firings"] > 0)]["feature"]
    assert chosen.table["feature"].tolist() == expected.tolist()


@given(n=st.integers(1, 90), seed=st.integers(0, 50))
def test_random_spreads_over_the_firing_rates(features, n, seed):
    chosen = select_sources(features, "random", n=n, layers=[0], seed=seed)
    live = features[(features["layer"] == 0) & (features["n_firings"] > 0)].sort_values("frequency")
    assert len(chosen.table) == min(n, len(live))
    assert not chosen.table.duplicated().any()
    place = {f: i for i, f in enumerate(live["feature"])}
    ranks = [place[f] for f in chosen.table["feature"]]  # a KeyError here would be a dead latent
    half = len(live) / 2
    low = sum(r < half for r in ranks)
    assert abs(low - len(ranks) / 2) <= 6  # strata of a tenth: one latent each of freedom, and the odd stratum
    again = select_sources(features, "random", n=n, layers=[0], seed=seed)
    pd.testing.assert_frame_equal(chosen.table, again.table)


def test_random_annotated_stays_in_the_pool(features):
    everything = select_sources(features, "annotated", n=1000).table
    part = select_sources(features, "random_annotated", n=5, seed=3).table
    assert len(part) == 10
    assert len(part.merge(everything)) == 10
    assert not part.equals(select_sources(features, "random_annotated", n=5, seed=4).table)


def test_a_list_is_taken_as_it_is(features):
    live = features[features["n_firings"] > 0].iloc[[5, 2]][["layer", "feature"]]
    chosen = select_sources(features, list(live.itertuples(index=False, name=None)))
    assert chosen.table["feature"].tolist() == sorted(live["feature"])
    assert chosen.rule["rule"] == "list"


def test_refusals(features):
    dead = features[features["n_firings"] == 0].iloc[0]
    with pytest.raises(ScircuitError, match="never fires"):
        select_sources(features, [(dead["layer"], dead["feature"])])
    with pytest.raises(ScircuitError, match="no latent 999 in layer 0"):
        select_sources(features, [(0, 999)])
    with pytest.raises(ScircuitError, match="list of source latents is empty"):
        select_sources(features, [])
    with pytest.raises(ScircuitError, match="'best' is unknown; it may be annotated, all"):
        select_sources(features, "best")
    with pytest.raises(ScircuitError, match="no layer 4; it has 0, 1"):
        select_sources(features, "all", layers=[4])
    with pytest.raises(ScircuitError, match="No latent of layers 0, 1 meets the source rule 'annotated'"):
        select_sources(features, "annotated", min_frequency=0.9)
