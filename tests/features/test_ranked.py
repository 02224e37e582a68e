import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from scircuit.errors import ScircuitError
from scircuit.features.catalogue import build_catalogue
from scircuit.features.ranked import loading_profile, rank_enrich
from scircuit.knowledge.gmt import GeneSets

needs_decoupler = pytest.mark.skipif(
    importlib.util.find_spec("decoupler") is None, reason="decoupler is an extra (scircuit[bio])"
)


@needs_decoupler
@pytest.mark.filterwarnings("default")
def test_torch_keeps_its_threads(case, own_threads):
    """numba, on which decoupler runs, sets the number of threads of the whole process."""
    features, genes, background, sets, _ = case
    torch.set_num_threads(3)
    rank_enrich(features, genes, sets, background)
    assert torch.get_num_threads() == 3


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    n_genes, n_latents = 80, 12
    profile = rng.exponential(size=(n_latents, n_genes)) * (rng.random((n_latents, n_genes)) < 0.4)
    profile[0, :10] = rng.uniform(3, 5, 10)  # latent 0 reads the planted set
    positions = rng.integers(5, 50, n_genes)
    row, column = np.nonzero(profile)
    n_firings = rng.integers(1, 5, len(row))
    genes = pd.DataFrame(
        {
            "layer": 0,
            "feature": row,
            "gene": pd.Categorical([f"G{c}" for c in column]),
            "n_firings": n_firings,
            "mean_activation": profile[row, column] * positions[column] / n_firings,
        }
    )
    features = pd.DataFrame({"layer": 0, "feature": range(n_latents), "n_firings": 1})
    background = pd.DataFrame({"symbol": [f"G{i}" for i in range(n_genes)], "ensembl_id": "", "n_positions": positions})
    members = {"planted": [f"G{i}" for i in range(10)]}
    members |= {f"s{j}": [f"G{g}" for g in rng.choice(n_genes, 9, replace=False)] for j in range(6)}
    return features, genes, background, GeneSets.from_dict("lib", members), profile


def test_profile_is_the_mean_over_all_positions(case):
    features, genes, background, _, profile = case
    matrix, symbols = loading_profile(features, genes, background)
    assert symbols.tolist() == background["symbol"].tolist()
    np.testing.assert_allclose(matrix.toarray(), profile)


@needs_decoupler
@pytest.mark.filterwarnings("default")
def test_equals_a_regression_of_ranks_and_bh_over_all(case):
    features, genes, background, sets, profile = case
    result = rank_enrich(features, genes, sets, background, alpha=0.5, latents_per_block=5)
    expected = {}
    for latent in range(len(features)):
        ranks = pd.Series(profile[latent]).rank().to_numpy()
        for term, members in sets.genes.items():
            x = background["symbol"].isin(members).to_numpy(dtype=float)
            fit = OLS(ranks, np.column_stack([np.ones(len(x)), x])).fit()
            expected[latent, term] = (fit.tvalues[1], stats.t.sf(fit.tvalues[1], len(x) - 2))
    q = dict(zip(expected, multipletests([p for _, p in expected.values()], method="fdr_bh")[1], strict=True))
    got = {(r.feature, r.term): (r.statistic, r.p_value, r.q_value) for r in result.terms.itertuples()}
    assert got.keys() == {key for key, value in q.items() if value <= 0.5}
    for key, values in got.items():
        assert values == pytest.approx((*expected[key], q[key]), rel=1e-6)
    assert result.terms.iloc[0]["term"] == "planted"


@needs_decoupler
@pytest.mark.filterwarnings("default")
def test_equals_decoupler_called_by_hand(case, own_threads):
    import decoupler

    features, genes, background, sets, profile = case
    ranks = pd.DataFrame(stats.rankdata(profile, axis=1), columns=background["symbol"], index=map(str, range(12)))
    net = pd.DataFrame(
        [(t, g, 1.0) for t, gs in sets.genes.items() for g in gs], columns=["source", "target", "weight"]
    )
    score, adjusted = decoupler.mt.ulm(ranks, net, tmin=3)
    result = rank_enrich(features, genes, sets, background, alpha=0.5)
    for row in result.terms.itertuples():
        assert row.statistic == pytest.approx(score.loc[str(row.feature), row.term], rel=1e-6)
    # decoupler's p is two-sided and adjusted within a latent; for the planted latent it says the same.
    assert adjusted.loc["0", "planted"] < 1e-6


@needs_decoupler
@pytest.mark.filterwarnings("default")
def test_on_a_catalogue(toy_model, toy_saes, toy_batches):
    catalogue = build_catalogue(toy_model, toy_batches, toy_saes)
    sets = GeneSets.from_dict("lib", {"s": ["G0", "G1", "G2"]})
    result = rank_enrich(catalogue.features, catalogue.genes, sets, catalogue.background)
    assert result.meta["n_tests"] == (catalogue.features["n_firings"] > 0).sum()
    with pytest.raises(ScircuitError, match="No set has 50 genes in the background"):
        rank_enrich(catalogue.features, catalogue.genes, sets, catalogue.background, min_size=50)


def test_without_decoupler(case, monkeypatch):
    import sys

    features, genes, background, sets, _ = case
    monkeypatch.setitem(sys.modules, "decoupler", None)
    with pytest.raises(ScircuitError, match=r"pip install 'scircuit\[bio\]'"):
        rank_enrich(features, genes, sets, background)
