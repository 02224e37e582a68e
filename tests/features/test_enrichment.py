import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from scircuit.errors import ScircuitError
from scircuit.features.enrichment import enrich
from scircuit.features.hypergeometric import overlap_p
from scircuit.knowledge.gmt import GeneSets

BACKGROUND = pd.DataFrame({"symbol": [f"G{i}" for i in range(60)], "ensembl_id": [f"ENSG{i:011d}" for i in range(60)]})


def random_case(seed: int, n_latents: int = 25, n_sets: int = 12):
    rng = np.random.default_rng(seed)
    sets = {
        f"set{j}": [f"G{g}" for g in rng.choice(75, rng.integers(1, 25), replace=False)]  # G60.. are not tokenised
        for j in range(n_sets)
    }
    planted = [g for g in sets["set0"] if int(g[1:]) < 60][:10]
    top = [planted if i == 0 else [f"G{g}" for g in rng.choice(60, rng.integers(0, 12), replace=False)]
           for i in range(n_latents)]  # fmt: skip
    features = pd.DataFrame({"layer": 0, "feature": range(n_latents), "top_genes": top})
    return features, GeneSets.from_dict("lib", sets)


@given(background=st.integers(1, 400), marked=st.integers(0, 400), drawn=st.integers(0, 60), overlap=st.integers(0, 60))
def test_tail_equals_scipy(background, marked, drawn, overlap):
    marked, drawn = min(marked, background), min(drawn, background)
    p = overlap_p([overlap], marked, drawn, background)
    assert p[0] == pytest.approx(stats.hypergeom.sf(overlap - 1, background, marked, drawn), rel=1e-9, abs=1e-300)


def test_tail_at_the_size_of_a_genome():
    overlap, marked, drawn = (a.ravel() for a in np.meshgrid(range(1, 21), [5, 60, 800, 5000], [10, 20], indexing="ij"))
    got = overlap_p(overlap, marked, drawn, 20_000)
    assert got == pytest.approx(stats.hypergeom.sf(overlap - 1, 20_000, marked, drawn), rel=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_fisher_loop_with_bh_over_every_pair(seed):
    features, sets = random_case(seed)
    background = set(BACKGROUND["symbol"])
    expected = {}
    family = []
    for latent, (name, genes) in itertools.product(features.itertuples(), sets.genes.items()):
        inside, query = set(genes) & background, set(latent.top_genes)
        if not inside or not query:
            continue
        a = len(inside & query)
        table = [[a, len(query) - a], [len(inside) - a, len(background) - len(inside) - len(query) + a]]
        p = stats.fisher_exact(table, alternative="greater").pvalue if a >= 3 else 1.0
        family.append((latent.feature, name, p))
    q = multipletests([p for *_, p in family], method="fdr_bh")[1]
    expected = {(f, t): (p, v) for (f, t, p), v in zip(family, q, strict=True) if v <= 0.25}
    result = enrich(features, sets, BACKGROUND, alpha=0.25, latents_per_block=7)
    got = {(r.feature, r.term): (r.p_value, r.q_value) for r in result.terms.itertuples()}
    assert result.meta["n_tests"] == len(family)
    assert got.keys() == expected.keys()
    assert (0, "set0") in got
    for key, values in expected.items():
        assert got[key] == pytest.approx(values, rel=1e-9)


def test_columns_say_what_they_mean():
    features = pd.DataFrame({"layer": [3], "feature": [7], "top_genes": [["G0", "G1", "G2", "G3", "G9"]]})
    sets = GeneSets.from_dict("lib", {"s": ["G0", "G1", "G2", "G3", "G20", "G99"]})
    (row,) = enrich(features, sets, BACKGROUND).terms.to_dict("records")
    assert row["n_overlap"] == 4
    assert row["set_size"] == 5  # G99 is not tokenised
    assert row["query_size"] == 5
    assert row["fold"] == pytest.approx((4 / 5) / (5 / 60))
    assert row["information_content"] == pytest.approx(-np.log2(5 / 60))
    assert (row["layer"], row["feature"], row["library"], row["term"]) == (3, 7, "lib", "s")


def test_sets_find_genes_by_any_name():
    features = pd.DataFrame({"layer": [0], "feature": [0], "top_genes": [["G0", "G1", "G2"]]})
    sets = GeneSets.from_dict("lib", {"ids": ["ENSG00000000000.7", "ENSG00000000001", "G2", "G1"]})
    (row,) = enrich(features, sets, BACKGROUND).terms.to_dict("records")
    assert (row["n_overlap"], row["set_size"]) == (3, 3)


def test_two_libraries_share_one_family():
    features, sets = random_case(0)
    twin = GeneSets.from_dict("twin", dict(sets.genes))
    one, two = (enrich(features, libraries, BACKGROUND, alpha=0.25) for libraries in (sets, [sets, twin]))
    assert two.meta["n_tests"] == 2 * one.meta["n_tests"]
    assert set(two.terms["library"]) == {"lib", "twin"}
    with pytest.raises(ScircuitError, match="give each its own name"):
        enrich(features, [sets, sets], BACKGROUND)


def test_false_discoveries_stay_below_alpha_without_signal():
    rng = np.random.default_rng(5)
    background = pd.DataFrame({"symbol": [f"G{i}" for i in range(2000)], "ensembl_id": ""})
    sets = GeneSets.from_dict(
        "lib", {f"s{j}": [f"G{g}" for g in rng.choice(2000, 40, replace=False)] for j in range(50)}
    )
    runs_with_a_call = 0
    for _ in range(40):
        top = [[f"G{g}" for g in rng.choice(2000, 20, replace=False)] for _ in range(50)]
        features = pd.DataFrame({"layer": 0, "feature": range(50), "top_genes": top})
        runs_with_a_call += len(enrich(features, sets, background).terms) > 0
    assert runs_with_a_call <= 6  # 5 % of 40 runs is 2; P(more than 6) < 0.004 at exactly 5 %


def test_refusals():
    features = pd.DataFrame({"layer": [0], "feature": [0], "top_genes": [["G0", "G1", "G2"]]})
    with pytest.raises(ScircuitError, match="No gene of mouse is among the 60 genes"):
        enrich(features, GeneSets.from_dict("mouse", {"s": ["Actb", "Gapdh"]}), BACKGROUND)
    stranger = features.assign(top_genes=[["X1", "G1"]])
    with pytest.raises(ScircuitError, match="top gene 'X1' is not among the 60 background genes"):
        enrich(stranger, GeneSets.from_dict("lib", {"s": ["G1"]}), BACKGROUND)


def test_no_live_latent_gives_an_empty_table():
    features = pd.DataFrame({"layer": [0], "feature": [0], "top_genes": [[]]})
    result = enrich(features, GeneSets.from_dict("lib", {"s": ["G1"]}), BACKGROUND)
    assert len(result.terms) == 0
    assert result.meta["n_tests"] == 0
