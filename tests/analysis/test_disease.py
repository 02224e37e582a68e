from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from labelled import LABELS, random_targets, two
from scipy import stats

from scircuit.analysis.disease import Associations, associate, disease_centrality, disease_conservation
from scircuit.analysis.regression import odds_ratio, rate_ratio, raw_odds_ratio
from scircuit.errors import ScircuitError
from scircuit.published.disease import KEYWORDS, disease_paper, keyword_sets

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def loadings(rng, n_latents: int = 30, n_genes: int = 400, diseased: int = 8) -> tuple[pd.DataFrame, dict]:
    """Latents over random genes; the first ones prefer the genes of one disease."""
    genes = np.array([f"G{i}" for i in range(n_genes)])
    sets = {"ill": list(genes[:30]), "other": list(genes[200:260]), "foreign": ["X1", "X2", "X3"]}
    rows = []
    for latent in range(n_latents):
        chosen = rng.choice(n_genes, 120, replace=False)
        value = rng.gamma(2.0, 1.0, 120)
        if latent < diseased:
            value[chosen < 30] += 20
        rows.append(pd.DataFrame({
            "layer": latent % 3, "feature": latent, "gene": genes[chosen], "n_firings": 10, "mean_activation": value,
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True), sets


def test_planted_associations_are_found_with_hypergeometric_p():
    genes, sets = loadings(np.random.default_rng(0))
    found = associate(genes, sets, profile_size=20)
    # Latents with too few of the 30 disease genes among their 120 have nothing to find.
    expected = {f for f in range(8) if (genes[genes["feature"] == f]["gene"].isin(sets["ill"])).sum() >= 7}
    assert len(expected) >= 5
    assert expected <= set(found.table["feature"])
    assert len(set(found.table["feature"]) - set(range(8))) <= 1
    assert (found.table["disease"] == "ill").mean() > 0.8
    assert found.n_tests == 30 * 2
    first = found.table.iloc[0]
    assert first["disease"] == "ill"
    top = genes[genes["feature"] == first["feature"]].nlargest(20, "mean_activation")["gene"]
    overlap = top.isin(sets["ill"]).sum()
    assert first["n_overlap"] == overlap
    assert first["p_value"] == pytest.approx(stats.hypergeom.sf(overlap - 1, found.n_genes, 30, 20))
    assert first["fold"] == pytest.approx(overlap / (20 * 30 / found.n_genes))


def test_random_latents_are_not_associated_and_profiles_have_one_length():
    genes, sets = loadings(np.random.default_rng(1), diseased=0)
    short = genes.groupby("feature").cumcount() < np.where(genes["feature"] == 5, 10, 1000)
    found = associate(genes[short], sets, profile_size=20)
    assert found.table.empty
    assert 5 not in set(found.latents["feature"])
    assert len(found.latents) == 29
    with pytest.raises(ScircuitError, match="lower profile_size"):
        associate(genes, sets, profile_size=500)
    with pytest.raises(ScircuitError, match="no disease set shares"):
        associate(genes, {"foreign": ["X1", "X2", "X3"]})


def test_adjusted_ratios_recover_what_was_planted_and_raw_ones_do_not():
    rng = np.random.default_rng(2)
    n = 6000
    size = rng.normal(size=n)
    exposed = rng.random(n) < 1 / (1 + np.exp(-1.5 * size))
    covariates = pd.DataFrame({"exposed": exposed, "size": size})
    outcome = rng.random(n) < 1 / (1 + np.exp(-(-1 + 0.7 * exposed + 1.2 * size)))
    groups = rng.integers(300, size=n)
    adjusted, raw = odds_ratio(outcome, covariates, "exposed", groups), raw_odds_ratio(outcome, exposed)
    assert adjusted.low < np.exp(0.7) < adjusted.high
    assert raw.low > np.exp(0.7)
    exposure = rng.uniform(10, 50, n)
    mean = exposure * np.exp(-2 + 0.4 * exposed + 0.8 * size)
    counts = rng.negative_binomial(2, 2 / (2 + mean)).astype(float)
    rate = rate_ratio(counts, covariates, "exposed", exposure)
    assert rate.low < np.exp(0.4) < rate.high
    assert rate.high / rate.low < 1.3


def test_intervals_without_effect_cover_one():
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        size = rng.normal(size=400)
        exposed = size + rng.normal(size=400) > 0
        mean = np.exp(1 + 0.8 * size)
        counts = rng.negative_binomial(3, 3 / (3 + mean)).astype(float)
        ratio = rate_ratio(counts, pd.DataFrame({"exposed": exposed, "size": size}), "exposed", np.ones(400))
        covered.append(ratio.low <= 1 <= ratio.high)
    assert np.mean(covered) > 0.85


def test_raw_odds_ratio_and_undefined_ratios():
    outcome = np.repeat([True, True, False, False], [12, 5, 7, 30])
    exposed = np.repeat([True, False, True, False], [12, 5, 7, 30])
    assert raw_odds_ratio(outcome, exposed).p_value == pytest.approx(stats.fisher_exact([[12, 7], [5, 30]]).pvalue)
    assert raw_odds_ratio(outcome, exposed).estimate == pytest.approx(12.5 * 30.5 / (7.5 * 5.5))
    assert np.isnan(raw_odds_ratio(outcome, np.ones(54, bool)).estimate)
    frame = pd.DataFrame({"exposed": exposed})
    assert np.isnan(odds_ratio(np.ones(54, bool), frame, "exposed", np.arange(54)).estimate)
    separated = pd.DataFrame({"exposed": outcome})
    assert np.isnan(odds_ratio(outcome, separated, "exposed", np.arange(54)).estimate)


def with_frequency(circuit, rng):
    """Firing rates, and tests as a trace counts them."""
    nodes = circuit.nodes.assign(frequency=np.exp(rng.normal(-4, 1, len(circuit.nodes))))
    return replace(circuit, nodes=nodes, tests=circuit.tests.assign(n_tests=400))


def associations_of(circuit, is_disease) -> Associations:
    latents = circuit.nodes[["layer", "feature"]].assign(is_disease=is_disease)
    return Associations(pd.DataFrame(), latents, 1, 50, 1000)


def test_centrality_is_judged_at_equal_frequency():
    """In-degree follows the firing rate, and so does the chance to be called a disease latent: no effect beyond it."""
    rng = np.random.default_rng(3)
    circuit = with_frequency(random_targets(3), rng)
    frequency = circuit.nodes["frequency"].to_numpy()
    weight = frequency**0.7
    width = 400
    target = circuit.edges["target_layer"].to_numpy()
    feature = np.empty(len(target), dtype=int)
    for layer in np.unique(target):
        own = weight[layer * width : (layer + 1) * width]
        feature[target == layer] = rng.choice(width, (target == layer).sum(), p=own / own.sum())
    circuit = replace(circuit, edges=circuit.edges.assign(target_feature=feature))
    is_disease = np.log(frequency) + rng.normal(size=len(frequency)) > -3.5
    result = disease_centrality(circuit, associations_of(circuit, is_disease))
    assert result["raw_in_degree_ratio"].estimate > 1.5
    assert result["in_degree_ratio"].low < 1 < result["in_degree_ratio"].high
    assert result["in_degree_ratio"].n == (circuit.nodes["layer"] > 0).sum()
    assert result["out_degree_ratio"].n == 60
    assert result.table["in_degree"].sum() == len(circuit.edges)


def test_a_central_disease_is_central():
    rng = np.random.default_rng(4)
    circuit = with_frequency(random_targets(4), rng)
    is_disease = rng.random(len(circuit.nodes)) < 0.2
    label = circuit.edges["target_layer"].to_numpy() * 400 + circuit.edges["target_feature"].to_numpy()
    keep = is_disease[label] | (rng.random(len(label)) < 0.5)
    circuit = replace(circuit, edges=circuit.edges[keep].reset_index(drop=True))
    ratio = disease_centrality(circuit, associations_of(circuit, is_disease))["in_degree_ratio"]
    assert ratio.low > 1.5
    assert ratio.estimate == pytest.approx(2.0, rel=0.25)
    other = associations_of(circuit, is_disease)
    other = replace(other, latents=other.latents.assign(layer=99))
    with pytest.raises(ScircuitError, match="no latent of the circuit has a gene profile"):
        disease_centrality(circuit, other)


def test_conservation_is_judged_at_equal_size():
    """Frequent labels are conserved more often and called disease labels: the raw odds ratio says 'disease'."""
    conditions = two(random_targets(0), random_targets(1))
    associations = {
        c.name: associations_of(c.circuit(), c.circuit().nodes["label"].isin(LABELS[:40])) for c in conditions
    }
    result = disease_conservation(conditions, associations)
    assert result["raw_odds_ratio"].low > 2
    adjusted = result["odds_ratio"]
    assert adjusted.estimate < result["raw_odds_ratio"].low
    table = result.table
    assert not (table["source_label"] == table["target_label"]).any()
    assert set(table.loc[table["is_disease"], "target_label"]) <= set(LABELS[:40])
    with pytest.raises(ScircuitError, match="no disease associations of 'b'"):
        disease_conservation(conditions, {"a": associations["a"]})


def test_random_disease_labels_have_no_odds():
    conditions = two(random_targets(5), random_targets(6))
    rng = np.random.default_rng(5)
    ill = LABELS[rng.random(len(LABELS)) < 0.5]
    associations = {c.name: associations_of(c.circuit(), c.circuit().nodes["label"].isin(ill)) for c in conditions}
    adjusted = disease_conservation(conditions, associations)["odds_ratio"]
    assert adjusted.low < 1 < adjusted.high


def test_the_published_definition_finds_disease_in_random_genes():
    """Random top genes, random targets: frequent labels pool more genes and edges, and come out 'diseased'."""
    rng = np.random.default_rng(6)
    genes = np.array([f"G{i}" for i in range(1500)])
    library = {f"{words[0]} term": list(rng.choice(genes, 150, replace=False)) for words in KEYWORDS.values()}
    conditions = two(random_targets(7), random_targets(8))
    conditions = [
        c.holding(circuit=replace(c.circuit(), nodes=c.circuit().nodes.assign(
            top_genes=[list(rng.choice(genes, 20, replace=False)) for _ in range(len(c.circuit().nodes))]
        )))
        for c in conditions
    ]  # fmt: skip
    result = disease_paper(conditions, library)
    assert result["disease_label_share"].estimate > 0.2
    corrected = associate_top_genes(conditions[0].circuit(), library)
    assert corrected.latents["is_disease"].mean() < 0.02
    table = result.table
    assert (table["is_disease"] == (table["categories"] != "")).all()
    one = table[table["n_latents"] > 0].iloc[0]
    own = set()
    for c in conditions:
        for label, top in zip(c.circuit().nodes["label"], c.circuit().nodes["top_genes"], strict=True):
            own |= set(top) if label == one["label"] else set()
    assert one["n_genes"] == len(own)


def associate_top_genes(circuit, library) -> Associations:
    exploded = circuit.nodes[["layer", "feature", "top_genes"]].explode("top_genes")
    genes = exploded.rename(columns={"top_genes": "gene"}).assign(n_firings=10)
    genes["mean_activation"] = np.random.default_rng(0).random(len(genes))
    return associate(genes, library, profile_size=20)


def test_keyword_sets():
    found = keyword_sets({"DNA repair (GO:1)": ["A"], "Response to DNA damage": ["B"], "other": ["C"]})
    assert found == {"DNA damage repair": {"A", "B"}}
    with pytest.raises(ScircuitError, match="no term contains a keyword"):
        keyword_sets({"other": ["C"]})


@pytest.mark.skipif(not SHARED.exists(), reason="real data sets are not beside the project")
def test_curated_sets_name_planted_drivers():
    """Latents planted on the genes of one IntOGen cancer type are called with that type, others are not."""
    from scircuit.knowledge.disease import read_clingen, read_intogen

    intogen = read_intogen(SHARED / "disease" / "intogen_Compendium_Cancer_Genes_2023.tsv.gz").sets(min_genes=15)
    clingen = read_clingen(SHARED / "disease" / "clingen_formatted_2025-01.txt.gz").sets(min_genes=5)
    sets = {**intogen.genes, **clingen.genes}
    universe = np.array(sorted({gene for genes in sets.values() for gene in genes} | {f"N{i}" for i in range(3000)}))
    rng = np.random.default_rng(7)
    cancer = max(intogen.genes, key=lambda name: len(intogen.genes[name]))
    rows = []
    for latent in range(40):
        drawn = rng.choice(universe, 60, replace=False)
        if latent < 4:
            drawn[:15] = rng.choice(list(intogen.genes[cancer]), 15, replace=False)
        rows.append(pd.DataFrame({
            "layer": 0, "feature": latent, "gene": drawn, "n_firings": 10, "mean_activation": np.arange(60, 0, -1.0),
        }).drop_duplicates("gene"))  # fmt: skip
    padding = pd.DataFrame({"layer": 1, "feature": 0, "gene": universe, "n_firings": 1, "mean_activation": 1.0})
    found = associate(pd.concat([*rows, padding], ignore_index=True), sets, profile_size=50)
    assert set(range(4)) == set(found.latents.loc[found.latents["is_disease"], "feature"])
    assert cancer in set(found.table["disease"])
