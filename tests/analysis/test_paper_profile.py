"""The published formulas by hand, and both profiles side by side."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from scircuit.analysis import paper
from scircuit.analysis.profiles import PROFILES, compare_profiles, paper_numbers, profile, published_numbers
from scircuit.circuits.build import DEFAULT, PAPER, build_circuit
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError


def edges(*rows):
    columns = ["source_layer", "source_feature", "target_layer", "target_feature", "cohens_d"]
    return pd.DataFrame(rows, columns=columns)


def test_effect_and_consistency():
    deltas = np.array([2.0, 4.0, 0.0, 0.0])
    assert paper.cohens_d(deltas) == pytest.approx(1.5 / np.sqrt(11 / 3))
    assert paper.consistency(deltas) == 0.5
    assert paper.consistency(-deltas) == 1.0
    assert paper.cohens_d(np.array([1.0, 1.0])) == 1e10


def test_inhibitory_share():
    assert paper.inhibitory_share(edges((0, 0, 1, 0, -1), (0, 0, 1, 1, 2), (0, 0, 1, 2, -3), (0, 0, 1, 3, -1))) == 0.75


def test_labels():
    annotations = pd.DataFrame(
        [
            ("STRING_edges", "pairwise_enrichment", 1.0),
            ("KEGG", "Cell cycle", 0.04),
            ("GO_BP", "mitosis", 0.03),
            ("GO_BP", "division", 0.01),
            ("Reactome", "M phase", 0.001),
        ],
        columns=["ontology", "term", "p_adjusted"],
    )
    assert paper.source_label(annotations) == "Cell cycle"
    assert paper.target_label(annotations) == "division"
    assert paper.source_label(annotations.iloc[:1]) == "unknown"
    assert paper.target_label(annotations.iloc[:2]) == "unannotated"


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


def test_consensus_under_every_bijection():
    """Labels a, b, c; second model a->b, b->c. All 6 bijections keep two pairs; two of them hit {a->b}."""
    first, second = [("a", "b"), ("x", "y")], [("a", "b"), ("b", "c")]
    result = paper.consensus(first, second, permutations(range(3)))
    assert result.observed == 1
    assert result.expected == pytest.approx(4 / 6 / 2)
    assert result.p_value == pytest.approx(2 / 6)
    assert result.enrichment == 1.0


def test_consensus_null_ignores_the_roles_of_labels():
    """Targets drawn at random from real labels look enriched against the published null, without any
    signal."""
    rng = np.random.default_rng(0)
    sources = [f"s{i}" for i in range(15)]
    targets = [f"t{i}" for i in range(150)]
    first, second = ({(rng.choice(sources), rng.choice(targets)) for _ in range(900)} for _ in range(2))
    result = paper.consensus(first, second, [rng.permutation(165) for _ in range(100)])
    assert result.enrichment > 5


def test_gene_pairs():
    table = edges((0, 0, 1, 0, -2.0), (0, 1, 1, 0, 1.0))
    genes = {(0, 0): ["A", "B"], (0, 1): ["B"], (1, 0): ["C", "A"]}
    pairs = paper.gene_pairs(table, genes).set_index(["source_gene", "target_gene"])
    # B -> C from both edges: -2 * 1/2 and 1 * 1; B -> A: -2 * 1/4 and 1 * 1/2; A -> C once and |d| = 2.
    assert set(pairs.index) == {("B", "C"), ("B", "A")}
    assert pairs.loc[("B", "C"), "mean_d"] == pytest.approx((-1 + 1) / 2)
    assert pairs.loc[("B", "C"), "mean_abs_d"] == pytest.approx((1 + 1) / 2)
    assert pairs.loc[("B", "A"), "mean_abs_d"] == pytest.approx((0.5 + 0.5) / 2)
    assert pairs.loc[("B", "C"), "max_abs_d"] == 2
    strong = paper.gene_pairs(table.assign(cohens_d=[-2.5, 1.0]), genes)
    assert ("A", "C") in set(zip(strong["source_gene"], strong["target_gene"], strict=True))


@pytest.fixture(scope="module")
def planted():
    return planted_circuit(n_latents=60, n_sources=10, seed=8)


def tables(planted):
    return planted.effects, planted.tests, planted.features, planted.terms


def test_paper_numbers_agree_with_their_formulas(planted):
    result = published_numbers(*tables(planted))
    truncated = build_circuit(*tables(planted), rule=PAPER)
    assert result["n_edges"].estimate == len(truncated.edges)
    assert result["inhibitory_share"].estimate == (truncated.edges["cohens_d"] < 0).mean()
    assert result["coherence"].estimate == paper.coherence(truncated.edges, planted.terms)
    pseudo = pd.concat([planted.terms, planted.features[["layer", "feature"]].assign(term="pairwise_enrichment")])
    assert paper_numbers(truncated, truncated, pseudo)["coherence"].estimate == 1.0


def test_both_profiles_beside_each_other(planted):
    table = compare_profiles(*tables(planted), draws=100).set_index("number")
    assert table["difference"].str.endswith(".").all()
    assert table.loc["edges", "default"] == len(planted.circuit.edges)
    assert table.loc["supporting share", "paper"] > table.loc["supporting share", "default"]
    assert table.loc["coherence", "default_null"] < table.loc["coherence", "default"]
    assert not table[["default", "paper"]].isna().any().any()


def test_a_trace_that_found_nothing_still_compares(planted):
    nothing = planted.effects.iloc[:0]
    table = compare_profiles(nothing, *tables(planted)[1:], draws=10)
    assert table["number"].tolist() == ["edges"]
    assert table["default"].tolist() == table["paper"].tolist() == [0]


def test_profiles_are_config():
    assert PROFILES["default"].rule == DEFAULT
    assert profile("paper").rule == PAPER
    with pytest.raises(ScircuitError, match="default, paper"):
        profile("publication")
