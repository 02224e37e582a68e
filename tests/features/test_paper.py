import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from statsmodels.stats.multitest import multipletests

from scircuit.errors import ScircuitError
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.networks import Network
from scircuit.published.annotation import annotate_as_published, label_as_published
from scircuit.published.annotation_rule import PublishedRule, label_ends, ontology

NO_BACKGROUND = pd.DataFrame()


def network(name, pairs, directed):
    edges = pd.DataFrame(pairs, columns=["source", "target"]).assign(sign=0, score=1.0)
    return Network(name, edges, directed, "0" * 64)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(2)
    genes = np.array([f"G{i:02d}" for i in range(40)])
    top = [genes[:8].tolist(), *(rng.choice(genes, 8, replace=False).tolist() for _ in range(9))]
    features = pd.DataFrame({"layer": [0] * 5 + [1] * 5, "feature": [*range(5), *range(5)], "top_genes": top})
    go = GeneSets.from_dict(
        "GO_BP",
        {
            "planted": [*genes[:7].tolist(), *(f"outside{i}" for i in range(2))],
            "tiny": genes[:4].tolist(),
            "huge": [*genes[:7].tolist(), *(f"o{i}" for i in range(494))],
            "other": genes[10:22].tolist(),
        },
    )
    kegg = GeneSets.from_dict("KEGG", {"k": genes[:6].tolist(), "l": genes[20:30].tolist()})
    trrust = network("TRRUST", [("G01", "G05"), ("G06", "G02"), ("G30", "G31")], True)
    string = network("STRING", [("G00", "G01"), ("G02", "G03")], False)
    return features, [kegg, go], trrust, string


def test_every_published_rule_by_hand(case):
    features, libraries, trrust, string = case
    table = annotate_as_published(features, libraries, trrust=trrust, string=string, alpha=0.4)
    sets = [(lib.name, t, set(g)) for lib in libraries for t, g in lib.genes.items() if 5 <= len(g) <= 500]
    sets.append(("TRRUST_TF", "transcription_factors", {"G01", "G06", "G30"}))
    for layer, part in features.groupby("layer"):
        n = len({g for genes in part["top_genes"] for g in genes})
        keys, p = [], []
        for feature, genes in zip(part["feature"], part["top_genes"], strict=True):
            for library, term, members in sets:
                a = len(members & set(genes))
                if a >= 2:
                    b, c = len(genes) - a, len(members) - a
                    keys.append((feature, library, term))
                    p.append(fisher_exact([[a, b], [c, max(n - a - b - c, 0)]], alternative="greater").pvalue)
        q = multipletests(p, method="fdr_bh")[1]
        tested = table[(table["layer"] == layer) & table["p_value"].notna()]
        got = {(r.feature, r.library, r.term): (r.p_value, r.q_value) for r in tested.itertuples()}
        expected = {k: (x, y) for k, x, y in zip(keys, p, q, strict=True) if y < 0.4}
        assert got == {k: pytest.approx(v, rel=1e-9) for k, v in expected.items()}
    first = table[(table["layer"] == 0) & (table["feature"] == 0)]
    assert first["library"].tolist()[0] == "KEGG"  # file order, not alphabet or p
    links = first[first["term"] == "pairwise_enrichment"].set_index("library")
    assert links.loc["STRING_edges", ["n_links", "density"]].tolist() == [2, pytest.approx(2 / 28)]
    # G06 -> G02 is a link too, but its regulator does not come first in the alphabet.
    assert links.loc["TRRUST_edges", "n_links"] == 1


def test_a_latent_has_two_labels_and_the_published_score(case):
    features, libraries, trrust, string = case
    table = annotate_as_published(features, libraries, trrust=trrust, string=string)
    labels = label_as_published(features, table)
    first = labels.iloc[0]
    assert (first["source_label"], first["target_label"]) == ("k", "planted")
    own = table[(table["layer"] == 0) & (table["feature"] == 0)]
    expected = 10 * own["library"].nunique() + len(own) - np.log10(own["q_value"].fillna(1).min())
    assert first["score"] == pytest.approx(expected)
    empty = labels[(labels["source_label"] == "unknown") & (labels["target_label"] == "unannotated")]
    assert len(empty) > 0


def test_a_link_alone_is_an_annotation():
    features = pd.DataFrame({"layer": [0], "feature": [0], "top_genes": [["A", "B", "C"]]})
    table = annotate_as_published(features, [GeneSets.from_dict("GO_BP", {})], string=network("S", [("A", "B")], False))
    assert table["term"].tolist() == ["pairwise_enrichment"]
    labels = label_as_published(features, table)
    assert labels["source_label"].tolist() == ["unknown"]
    assert labels["score"].tolist() == [10 + 1 - 0.0]


def test_a_link_counts_double_for_scgpt(case):
    features, libraries, trrust, string = case
    table = annotate_as_published(features, libraries, trrust=trrust, string=string, alpha=0.4)
    one, two = (label_as_published(features, table, link_score=n)["score"] for n in (1, 2))
    links = table[table["n_links"] > 0].groupby(["layer", "feature"]).size()
    expected = links.reindex(pd.MultiIndex.from_frame(features[["layer", "feature"]])).fillna(0).to_numpy()
    assert (two - one).tolist() == expected.tolist()
    assert expected.any()


def test_the_rule_in_the_tables_of_a_run(case):
    features, libraries, trrust, string = case
    rule = PublishedRule.of(libraries, [trrust, string], alpha=0.4)
    table, found = rule.annotate(features, NO_BACKGROUND)
    raw = annotate_as_published(features, libraries, trrust=trrust, string=string, alpha=0.4)
    terms = found.terms
    assert terms["term"].tolist() == raw["term"].tolist()
    assert not terms.drop(columns=["odds_ratio", "density", "fold"]).isna().any(axis=None)
    assert (terms["information_content"] >= 0).all()
    assert table["n_terms"].tolist() == [
        int(((raw["layer"] == r.layer) & (raw["feature"] == r.feature)).sum()) for r in features.itertuples()
    ]
    first = terms[terms["library"] == "GO_BP"].iloc[0]
    layer = features[features["layer"] == first["layer"]]
    n = len({g for genes in layer["top_genes"] for g in genes})
    assert first["fold"] == pytest.approx(first["n_overlap"] / (first["set_size"] * first["query_size"] / n))
    assert rule.control(features, NO_BACKGROUND, draws=5, seed=0).n_annotated == (table["n_terms"] > 0).sum()

    sources = features[["layer", "feature"]].iloc[:2]
    ends = label_ends(table, sources)
    assert ends["label"].tolist() == [*table["label"][:2], *table["target_label"][2:]]
    assert label_ends(features, sources) is features


def test_nothing_annotated_is_no_error(case):
    features, _, _, _ = case
    far = GeneSets.from_dict("GO_BP", {"s": [f"X{i}" for i in range(6)]})
    silent = features.assign(top_genes=[[] for _ in range(len(features))])
    for case_features in (features, silent):
        table, found = PublishedRule.of([far], []).annotate(case_features, NO_BACKGROUND)
        assert len(found.terms) == 0
        assert set(table["label"]) | set(table["target_label"]) == {"unlabelled"}
        assert set(table["score"]) == {0.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("go_bp_2023", "GO_BP"),
        ("c5.go.bp.v2023.2.Hs.symbols", "GO_BP"),
        ("gobp", "GO_BP"),
        ("enrichr.GO_Biological_Process_2021", "GO_BP"),
        ("KEGG_2021_Human", "KEGG"),
        ("reactome_2022", "Reactome"),
        ("hallmark", "hallmark"),
    ],
)
def test_ontologies_by_the_name_of_the_library(name, expected):
    assert ontology(name) == expected


def test_libraries_that_the_published_rules_do_not_know(case):
    _, libraries, _, _ = case
    own = GeneSets.from_dict("programs", {"s": ["G1"]})
    assert PublishedRule.of([own], []).label_libraries == (("programs",), ("programs",))
    assert PublishedRule.of([own, *libraries], []).label_libraries == (("KEGG", "GO_BP"), ("GO_BP",))
    twin = GeneSets.from_dict("go_bp_2021", {"s": ["G1"]})
    with pytest.raises(ScircuitError, match="two gene-set libraries are GO_BP"):
        PublishedRule.of([*libraries, twin], [])
    with pytest.raises(ScircuitError, match="know the networks STRING and TRRUST, not CollecTRI"):
        PublishedRule.of(libraries, [network("CollecTRI", [("A", "B")], True)])
