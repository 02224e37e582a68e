import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from statsmodels.stats.multitest import multipletests

from scircuit.features.paper import annotate_as_published, label_as_published
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.networks import Network


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
