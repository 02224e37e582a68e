from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from labelled import circuit_of

from scircuit.analysis.feature_matching import _nearest, feature_consensus, match_latents
from scircuit.circuits.artefacts import Artefacts
from scircuit.errors import ScircuitError

WIDTH, GENES, LAYERS = 40, 150, 4


def truth(seed: int = 0):
    """Gene programmes of latents and effects between them, the common ground of several models."""
    rng = np.random.default_rng(seed)
    programmes = rng.gamma(0.15, 1.0, (LAYERS, WIDTH, GENES)) * np.exp(rng.normal(0, 1, GENES))
    effects = rng.normal(0, 1.2, (LAYERS, WIDTH, LAYERS, WIDTH))
    exists = rng.random(effects.shape) < 0.1
    return programmes, np.where(exists, effects, 0.0)


def model(seed: int, noise: float = 0.3, ground: int = 0, name: str = "m") -> Artefacts:
    """A model trained on the same cells: the same programmes in another order, measured with noise."""
    programmes, effects = truth(ground)
    rng = np.random.default_rng(seed)
    order = [rng.permutation(WIDTH) for _ in range(LAYERS)]
    rows = []
    for layer in range(LAYERS):
        mass = programmes[layer][order[layer]] * np.exp(noise * rng.normal(size=(WIDTH, GENES)))
        feature, gene = np.nonzero(mass > 0.02)
        rows.append(pd.DataFrame({
            "layer": layer, "feature": feature, "gene": [f"G{g}" for g in gene], "n_firings": 10,
            "mean_activation": mass[feature, gene],
        }))  # fmt: skip
    edges = []
    for layer in range(LAYERS - 1):
        for target_layer in range(layer + 1, LAYERS):
            true = effects[layer][order[layer]][:, target_layer][:, order[target_layer]]
            d = true + noise * rng.normal(size=true.shape)
            source, target = np.nonzero(np.abs(d) > 0.5)
            edges.append(pd.DataFrame({
                "source_layer": layer, "source_feature": source, "target_layer": target_layer,
                "target_feature": target, "cohens_d": d[source, target],
            }))  # fmt: skip
    layer, feature = np.divmod(np.arange(LAYERS * WIDTH), WIDTH)
    nodes = pd.DataFrame({"layer": layer, "feature": feature, "label": "unlabelled"})
    circuit = circuit_of(pd.concat(edges, ignore_index=True), nodes)
    condition = Artefacts.in_memory(circuit, pd.concat(rows, ignore_index=True), name=name, model=name)
    return condition, order


@pytest.fixture(scope="module")
def same():
    (a, order_a), (b, order_b) = model(1, name="a"), model(2, name="b")
    return a, b, order_a, order_b


def test_two_models_of_the_same_cells_match(same):
    a, b, order_a, order_b = same
    matching = match_latents(a, b)
    assert len(matching.table) > 0.8 * matching.n_a
    right = [
        row.layer_a == row.layer_b and order_a[row.layer_a][row.feature_a] == order_b[row.layer_b][row.feature_b]
        for row in matching.table.itertuples()
    ]
    assert np.mean(right) > 0.95


def test_their_edges_agree(same):
    a, b, *_ = same
    result = feature_consensus(a, b, draws=200)
    assert result["matched_share"].estimate > 0.8
    assert result["matched_share"].p_value < 0.05
    assert result["matched_share"].null < 0.05
    assert result["conserved_fold"].low > 2
    assert result["conserved_fold"].p_value == pytest.approx(1 / 201)
    assert result["same_sign"].low > 0.9 > result["same_sign"].null
    assert result["rank_correlation"].low > 0.85
    conserved = result.table[result.table["conserved"]]
    assert np.corrcoef(conserved["d_a"], conserved["d_b"])[0, 1] > 0.9


def test_shuffled_genes_match_nothing(same):
    a, b, *_ = same
    rng = np.random.default_rng(3)
    names = pd.Series(rng.permutation(GENES), index=[f"G{g}" for g in range(GENES)])
    genes = b.table("genes")
    shuffled = b.holding(genes=genes.assign(gene="G" + names.loc[genes["gene"]].astype(str).to_numpy()))
    matching = match_latents(a, shuffled)
    assert len(matching.table) <= 0.02 * matching.n_a
    result = feature_consensus(a, shuffled, matching, draws=50)
    assert result["matched_share"].p_value > 0.05


def test_matched_latents_with_unrelated_edges_do_not_agree(same):
    """The same programmes, other effects: latents match, edges are conserved as often as by chance."""
    a, b, *_ = same
    rng = np.random.default_rng(4)
    edges = b.circuit().edges
    parts = []
    for _, part in edges.groupby(["source_layer", "target_layer"]):
        parts.append(part.assign(
            source_feature=rng.integers(WIDTH, size=len(part)), target_feature=rng.integers(WIDTH, size=len(part)),
            cohens_d=rng.permutation(part["cohens_d"]),
        ))  # fmt: skip
    ends = ["source_layer", "source_feature", "target_layer", "target_feature"]
    other = circuit_of(pd.concat(parts, ignore_index=True).drop_duplicates(ends), b.circuit().nodes)
    result = feature_consensus(a, b.holding(circuit=other), draws=200)
    assert result["matched_share"].estimate > 0.7
    assert result["conserved_fold"].low < 1 < result["conserved_fold"].high
    assert result["same_sign"].low < result["same_sign"].null < result["same_sign"].high
    assert result["rank_correlation"].low < 0 < result["rank_correlation"].high


def test_latents_of_the_same_dictionaries_are_themselves(same):
    """Few edges and no genes: chance has no say in it, and edges that one run lacks are not left out."""
    few = same[0].circuit().edges.iloc[:6]
    a, b = (
        Artefacts.in_memory(replace(same[0].circuit(), edges=edges, provenance={"saes": "one"}), name=name, model="m")
        for name, edges in (("a", few), ("b", few.iloc[:3]))
    )
    table = match_latents(a, b).table
    assert (table[["layer_a", "feature_a"]].to_numpy() == table[["layer_b", "feature_b"]].to_numpy()).all()
    result = feature_consensus(a, b, draws=20)
    assert (result["matched_share"].estimate, result["conserved_share"].estimate) == (1.0, 0.5)
    assert np.isnan(result["matched_share"].p_value)
    other = b.holding(circuit=replace(b.circuit(), provenance={"saes": "other"}))
    with pytest.raises(ScircuitError, match="no gene loadings"):
        match_latents(a, other)


def test_nearest_neighbours_equal_the_full_matrix(monkeypatch):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(37, 10)).astype(np.float32), rng.normal(size=(23, 10)).astype(np.float32)
    monkeypatch.setattr("scircuit.analysis.feature_matching._BLOCK", 8)
    best, partner, mutual = _nearest(x, y)
    r = x @ y.T
    np.testing.assert_array_equal(partner, r.argmax(axis=1))
    np.testing.assert_allclose(best, r.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(mutual, [r[:, p].argmax() == i for i, p in enumerate(r.argmax(axis=1))])


def test_only_tested_partners_count(same):
    a, b, *_ = same
    tests = b.circuit().tests
    some = b.holding(circuit=replace(b.circuit(), tests=tests[tests["source_layer"] == 0]))
    table = feature_consensus(a, some, draws=10).table
    assert set(table["source_layer_b"]) == {0}


def test_loadings_are_needed(same):
    a, b, *_ = same
    with pytest.raises(ScircuitError, match="b has no gene loadings"):
        match_latents(a, Artefacts.in_memory(b.circuit(), name="b", model="b"))
    ensembl = b.holding(genes=b.table("genes").assign(gene="ENSG" + b.table("genes")["gene"]))
    with pytest.raises(ScircuitError, match="share 0 genes"):
        match_latents(a, ensembl)
    with pytest.raises(ScircuitError, match="lower min_genes"):
        match_latents(a, b, min_genes=1000)
