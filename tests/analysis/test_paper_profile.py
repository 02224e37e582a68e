"""The published formulas by hand, and both profiles side by side."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scircuit.analysis.sign_balance import sign_balance
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.build import build_circuit
from scircuit.circuits.rule import DEFAULT
from scircuit.circuits.schema import ENDS
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError
from scircuit.published import definitions as paper
from scircuit.published import questions as published
from scircuit.published.definitions import PAPER
from scircuit.published.profiles import PROFILES, profile
from scircuit.published.questions import Traced
from scircuit.published.side_by_side import compare_profiles


def edges(*rows):
    columns = ["source_layer", "source_feature", "target_layer", "target_feature", "cohens_d"]
    return pd.DataFrame(rows, columns=columns)


def test_inhibitory_share():
    assert paper.inhibitory_share(edges((0, 0, 1, 0, -1), (0, 0, 1, 1, 2), (0, 0, 1, 2, -3), (0, 0, 1, 3, -1))) == 0.75


def test_coherence_counts_pseudo_terms():
    table = edges((0, 0, 1, 0, 1), (0, 0, 1, 1, 1), (0, 0, 1, 2, 1), (0, 1, 1, 0, 1))
    annotations = pd.DataFrame(
        [(0, 0, "a"), (0, 0, "pairwise_enrichment"), (1, 0, "b"), (1, 0, "pairwise_enrichment"), (1, 1, "c")],
        columns=["layer", "feature", "term"],
    )
    assert paper.coherence(table, annotations) == 0.5
    assert paper.coherence(table, annotations[annotations["term"] != "pairwise_enrichment"]) == 0.0
    assert np.isnan(paper.coherence(table, annotations.iloc[:0]))


def test_attenuation_and_density():
    table = edges((0, 0, 1, 0, 1), (0, 0, 1, 1, 1), (0, 1, 1, 0, 1), (0, 1, 2, 0, 1), (1, 5, 2, 0, 1))
    curve = paper.attenuation(table).set_index(["source_layer", "distance"])
    assert curve["mean_edges"].to_dict() == {(0, 1): 1.5, (0, 2): 0.5, (1, 1): 1.0}
    assert curve.loc[(0, 2), "normalised"] == pytest.approx(1 / 3)
    tests = pd.DataFrame(
        [(0, s, layer, "latent") for s in range(3) for layer in (1, 2)] + [(1, 5, 2, "latent"), (1, 5, 2, "random")],
        columns=["source_layer", "source_feature", "target_layer", "kind"],
    )
    density = paper.density(table, tests).set_index(["source_layer", "target_layer"])["edges_per_source"]
    assert density.to_dict() == {(0, 1): 1.0, (0, 2): pytest.approx(1 / 3), (1, 2): 1.0}


def test_pmi_overlap():
    causal = edges((0, 0, 1, 0, 1), (0, 0, 1, 1, 1), (0, 1, 1, 2, 1), (0, 1, 1, 3, 1))
    known = edges((0, 0, 1, 0, 1), (0, 9, 1, 1, 1), (0, 9, 1, 2, 1))
    assert paper.pmi_overlap(causal, known) == (1, 0.75)


@pytest.fixture(scope="module")
def planted():
    return planted_circuit(n_latents=60, n_sources=10, seed=8)


def run_of(planted, **tables):
    """The planted trace as a run in memory."""
    held = {"circuit": planted.circuit, "effects": planted.effects, "tests": planted.tests, **tables}
    return Artefacts("planted", held=held)


@pytest.fixture(scope="module")
def annotations(planted):
    """The planted sets as the published files would list them, with a pseudo-term on every latent."""
    rows = planted.terms.assign(library="GO_BP")[["layer", "feature", "library", "term", "q_value"]]
    pseudo = planted.features[["layer", "feature"]].assign(library="STRING_edges", term="pairwise_enrichment")
    return pd.concat([rows, pseudo], ignore_index=True)


def test_answers_as_published_agree_with_their_formulas(planted, annotations):
    traced = Traced.of(run_of(planted))
    tables = planted.effects, planted.tests, planted.features, planted.terms
    cut, uncut = (build_circuit(*tables, rule=r).edges for r in (PAPER, replace(PAPER, top_k=None)))
    sign, size = published.sign_balance(traced), published.effect_sizes(traced)
    assert sign["n_edges"].estimate == len(cut)
    assert sign["n_edges_untruncated"].estimate == len(uncut)
    assert sign["inhibitory_share"].estimate == (cut["cohens_d"] < 0).mean()
    assert (sign.table["inhibitory_share"] * sign.table["n_edges"]).sum() == pytest.approx((cut["cohens_d"] < 0).sum())
    assert size["median_abs_d"].estimate == pytest.approx(cut["cohens_d"].abs().median())
    assert published.coherence(traced)["coherence"].estimate == paper.coherence(cut, planted.terms)
    assert published.coherence(traced, annotations)["coherence"].estimate == 1.0
    hubs = published.hubs(traced)
    assert hubs["largest_out_degree"].estimate == cut.groupby(["source_layer", "source_feature"]).size().max()
    assert hubs["largest_n_significant"].estimate == uncut.groupby(["source_layer", "source_feature"]).size().max()
    assert hubs["n_targets"].estimate == len(cut[["target_layer", "target_feature"]].drop_duplicates())
    assert hubs.table.groupby("role").size().max() <= 20
    density = published.attenuation(traced).table
    assert (density["edges_per_source"] * 10).sum() == pytest.approx(len(uncut))


def test_the_cut_limits_what_a_source_has():
    """120 planted targets, 50 kept per source and layer; degrees, balance and mean |d| are of the kept."""
    planted = planted_circuit(n_layers=2, n_latents=200, n_sources=3, edge_share=0.6, zero_share=0.0, seed=3)
    traced = Traced.of(run_of(planted))
    assert published.hubs(traced)["largest_out_degree"].estimate == 50
    assert published.hubs(traced)["largest_n_significant"].estimate > 100
    strongest = traced.untruncated.edges.assign(a=lambda t: t["cohens_d"].abs()).sort_values("a", ascending=False)
    kept = strongest.groupby("source_feature").head(50)
    assert published.effect_sizes(traced).estimate == pytest.approx(kept["a"].mean())


def test_labels_of_many_latents_are_those_of_each(planted):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "layer": rng.integers(0, 2, 300),
            "feature": rng.integers(0, 20, 300),
            "library": rng.choice(["STRING_edges", "KEGG", "GO_BP", "Reactome", "TRRUST_TF"], 300),
            "term": [f"term {i}" for i in range(300)],
            "q_value": rng.integers(1, 5, 300) / 100,
        }
    )
    found = paper.labels(rows)
    for key, own in rows.groupby(["layer", "feature"]):
        named = own[own["library"].isin(("GO_BP", "KEGG", "Reactome"))]["term"].tolist()
        go = own[own["library"] == "GO_BP"]
        best = go["term"].iloc[int(np.argmin(go["q_value"]))] if len(go) else None
        assert found["source_label"].get(key) == (named[0] if named else None)
        assert (found["target_label"].get(key) if best else None) == best


def test_top_circuits_by_shared_terms_then_size(planted, annotations):
    table = published.coherence(Traced.of(run_of(planted)), annotations).table
    assert len(table) == 50
    order = list(zip(-table["n_shared"], -table["cohens_d"].abs(), strict=True))
    assert order == sorted(order)
    terms = {key: set(rows) for key, rows in annotations.groupby(["layer", "feature"])["term"]}
    for row in table.itertuples():
        shared = terms[row.source_layer, row.source_feature] & terms[row.target_layer, row.target_feature]
        assert row.n_shared == len(shared)
    assert set(table["target_label"]) - {"unannotated"} <= set(planted.terms["term"])


def test_saved_pmi_edges_by_hand():
    """Two per source, one source per layer pair, at least 100 common firings."""
    rows = [
        (0, 1, 1, 0, 100, 5.0), (0, 1, 1, 1, 200, 3.0), (0, 1, 1, 2, 300, 4.0), (0, 1, 1, 3, 99, 9.0),
        (0, 2, 1, 0, 100, 4.5), (0, 1, 2, 0, 100, 1.0), (0, 2, 2, 0, 100, 2.0),
    ]  # fmt: skip
    pairs = pd.DataFrame(rows, columns=[*ENDS, "n_both", "pmi"])
    saved = paper.saved_pmi_edges(pairs, per_source=2, n_sources=1)
    assert set(saved[ENDS].itertuples(index=False, name=None)) == {(0, 1, 1, 0), (0, 1, 1, 2), (0, 2, 2, 0)}


def test_ratio_of_d_by_hand():
    """One target, two cells: A moves it by 1 and 3, B by 2 and 4, both together by 2 and 4."""
    delta = {1: (1.0, 3.0), 2: (2.0, 4.0), 3: (2.0, 4.0)}
    rows = [(0, s, 1, 0, cell, d) for s, values in delta.items() for cell, d in enumerate(values)]
    effects = pd.DataFrame(rows, columns=["set_id", "subset", "target_layer", "target_feature", "cell", "delta"])
    sets = pd.DataFrame({"set_id": 0, "member": [0, 1], "layer": 0, "feature": [0, 1], "n_cells": 2})
    # d_A = 2 / sqrt(2), d_B = d_AB = 3 / sqrt(2).
    assert paper.d_ratios(effects, sets)["ratio"].tolist() == pytest.approx([3 / 5])


def test_independent_effects_have_the_published_ratio_by_construction():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, (2, 30, 400))
    tables_of = []
    for subset, values in ((1, a), (2, b), (3, a + b)):
        target, cell = np.indices(values.shape)
        columns = {"target_feature": target.ravel(), "cell": cell.ravel(), "delta": values.ravel()}
        tables_of.append(pd.DataFrame(columns).assign(set_id=0, subset=subset, target_layer=1))
    sets = pd.DataFrame({"set_id": 0, "member": [0, 1], "layer": 0, "feature": [0, 1], "n_cells": 400})
    result = published.interactions(pd.concat(tables_of), sets)
    assert result["ratio_2"].estimate == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_symmetric_signs_look_inhibitory_under_the_published_rule_only():
    """As many rise as fall, 60 % of the cells silent."""
    planted = planted_circuit(
        n_layers=3, n_latents=200, n_sources=20, edge_share=0.3, supporting=0.5, zero_share=0.6, effect=1.5, seed=0
    )
    share = sign_balance(planted.circuit).estimate
    assert 0.45 <= share <= 0.55
    assert published.sign_balance(Traced.of(run_of(planted))).estimate > 0.6


def test_both_profiles_beside_each_other(planted):
    table = compare_profiles(run_of(planted), draws=100).set_index("number")
    assert table["difference"].str.endswith(".").all()
    assert table.loc["edges", "default"] == len(planted.circuit.edges)
    assert table.loc["supporting share", "paper"] > table.loc["supporting share", "default"]
    assert table.loc["coherence", "default_null"] < table.loc["coherence", "default"]
    assert not table[["default", "paper"]].isna().any().any()


def test_more_tables_give_more_rows(planted, annotations):
    rng = np.random.default_rng(0)
    pairs = planted.circuit.edges[ENDS].assign(n_both=200, pmi=1.0)
    rows = [(0, s, 1, 0, c, rng.normal(1, 1)) for s in (1, 2, 3) for c in range(20)]
    effects = pd.DataFrame(rows, columns=["set_id", "subset", "target_layer", "target_feature", "cell", "delta"])
    sets = pd.DataFrame({"set_id": 0, "member": [0, 1], "layer": 0, "feature": [0, 1], "n_cells": 20})
    run = run_of(planted, coactivation=pairs, interactions=effects, interaction_sets=sets)
    table = compare_profiles(run, annotations, draws=50).set_index("number")
    assert table["difference"].str.endswith(".").all()
    assert table.loc["co-activation", "paper"] > 0.9
    assert 0 < table.loc["labelled edges", "paper"] < 1
    assert table.loc["norm ratio of pairs", "default"] != table.loc["norm ratio of pairs", "paper"]


def test_a_trace_that_found_nothing_still_compares(planted):
    table = compare_profiles(run_of(planted, effects=planted.effects.iloc[:0]), draws=10)
    assert table["number"].tolist() == ["edges"]
    assert table["default"].tolist() == table["paper"].tolist() == [0]


def test_profiles_are_config():
    assert PROFILES["default"].rule == DEFAULT
    assert profile("paper").rule == PAPER
    with pytest.raises(ScircuitError, match="default, paper"):
        profile("publication")
