import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from scircuit.features.catalogue import build_catalogue
from scircuit.features.cells import CellProfile, TopCells, enrich_obs


def test_planted_cell_type_is_found_and_p_equals_fisher():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"kind": rng.choice(["a", "b", "c"], 300, p=[0.1, 0.3, 0.6]), "odd": np.arange(300) % 2 == 1})
    obs.loc[::50, "kind"] = None
    profile = CellProfile(obs)
    for start in range(0, 300, 64):
        profile.add(np.arange(start, min(start + 64, 300)))
    kind_a = np.flatnonzero(obs["kind"] == "a")
    queries = [kind_a[:15], rng.choice(300, 15, replace=False), rng.choice(300, 8, replace=False)]
    top = TopCells(3, 50)
    for latent, cells in enumerate(queries):
        top.add(np.full(len(cells), latent), cells, rng.uniform(1, 2, len(cells)))
    table = enrich_obs(top.table(2), profile, alpha=1.0)
    family = {}
    for latent, cells in enumerate(queries):
        for column, category in [("kind", "a"), ("kind", "b"), ("kind", "c"), ("odd", "False"), ("odd", "True")]:
            member = (obs[column].astype(str) == category).to_numpy()
            a = int(member[cells].sum())
            rest = member.sum() - a
            square = [[a, len(cells) - a], [rest, 300 - len(cells) - rest]]
            family[latent, column, category] = stats.fisher_exact(square, alternative="greater").pvalue
    q = dict(zip(family, multipletests(list(family.values()), method="fdr_bh")[1], strict=True))
    got = {(r.feature, r.column, r.category): (r.p_value, r.q_value) for r in table.itertuples()}
    assert got.keys() == family.keys()
    for key, p in family.items():
        assert got[key] == (pytest.approx(p, rel=1e-9), pytest.approx(q[key], rel=1e-9))
    best = enrich_obs(top.table(2), profile).iloc[0]
    assert (best["layer"], best["feature"], best["category"], best["n_overlap"]) == (2, 0, "a", 15)


def test_query_is_the_most_active_twentieth():
    obs = pd.DataFrame({"kind": np.repeat(["x", "y"], 500)})
    profile = CellProfile(obs)
    profile.add(np.arange(1000))
    top = TopCells(1, 80)
    top.add(np.zeros(200, int), np.arange(400, 600), np.linspace(9, 1, 200))
    (row,) = enrich_obs(top.table(0), profile).to_dict("records")
    assert (row["category"], row["query_size"], row["n_overlap"], row["category_size"]) == ("x", 50, 50, 500)
    assert row["fold"] == pytest.approx(2.0)


def test_top_cells_do_not_depend_on_the_batches():
    rng = np.random.default_rng(1)
    latent, cell = np.divmod(rng.permutation(4 * 100), 100)
    score = rng.integers(0, 6, 400).astype(float)  # many ties
    tables = []
    for size in (1, 37, 400):
        top = TopCells(4, 5)
        top._limit = 50
        for start in range(0, 400, size):
            top.add(latent[start : start + size], cell[start : start + size], score[start : start + size])
        tables.append(top.table(0))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


def test_in_the_catalogue(toy_model, toy_saes, toy_batches, tmp_path):
    # The toy's residuals depend on the parity of the cell, so parity must come out.
    obs = pd.DataFrame({"parity": np.where(np.arange(30) % 2, "odd", "even")})
    catalogue = build_catalogue(toy_model, toy_batches, toy_saes, obs=obs)
    assert set(catalogue.obs["column"]) == {"parity"}
    assert (catalogue.obs["q_value"] <= 0.05).all()
    assert build_catalogue(toy_model, toy_batches, toy_saes, obs=obs[[]]).obs is None
