import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError
from scircuit.perturbation.predictions import predict_from_loadings, predict_from_logits
from scircuit.published.screen import paper_gene_pairs, predict_paper


def random_run(seed: int, n_latents: int = 6, n_genes: int = 9, n_edges: int = 12):
    """Two layers of latents, random loadings (some absent) and edges."""
    rng = np.random.default_rng(seed)
    layer, feature, gene = np.nonzero(rng.random((2, n_latents, n_genes)) < 0.5)
    loadings = pd.DataFrame(
        {
            "layer": layer,
            "feature": feature,
            "gene": [f"G{g}" for g in gene],
            "n_firings": rng.integers(1, 50, len(layer)),
            "mean_activation": rng.random(len(layer)) + 0.1,
        }
    ).sample(frac=1, random_state=seed)
    pairs = rng.choice(n_latents**2, n_edges, replace=False)
    edges = pd.DataFrame(
        {
            "source_layer": 0,
            "source_feature": pairs // n_latents,
            "target_layer": 1,
            "target_feature": pairs % n_latents,
            "mean_delta": rng.normal(size=n_edges),
            "clean_sd": rng.random(n_edges) + 0.5,
            "cohens_d": rng.normal(0, 1.5, n_edges),
        }
    )
    return edges, loadings


def shares(loadings: pd.DataFrame) -> dict[tuple[int, int, str], float]:
    """Share of each gene in what a latent fires on."""
    mass, total = {}, {}
    for row in loadings.itertuples():
        mass[row.layer, row.feature, row.gene] = own = row.n_firings * row.mean_activation
        total[row.layer, row.feature] = total.get((row.layer, row.feature), 0.0) + own
    return {key: value / total[key[:2]] for key, value in mass.items()}


@given(seed=st.integers(0, 1000))
def test_loadings_definition_equals_the_sum_over_edges(seed):
    edges, loadings = random_run(seed)
    scores, share = predict_from_loadings(edges, loadings).scores, shares(loadings)
    for g in scores.index[:3]:
        for j in scores.columns[:4]:
            expected = 0.0
            for edge in edges.itertuples():
                ends = share.get((0, edge.source_feature, g), 0.0), share.get((1, edge.target_feature, j), 0.0)
                expected += ends[0] * edge.mean_delta / edge.clean_sd * ends[1]
            assert scores.loc[g, j] == pytest.approx(0.0 if g == j else expected, abs=1e-6)


def test_one_edge_gives_the_sign_and_the_share():
    loadings = pd.DataFrame(
        {
            "layer": [0, 0, 1],
            "feature": [0, 0, 5],
            "gene": ["A", "B", "C"],
            "n_firings": [3, 1, 7],
            "mean_activation": [1.0, 1.0, 2.0],
        }
    )
    edges = pd.DataFrame(
        {
            "source_layer": [0],
            "source_feature": [0],
            "target_layer": [1],
            "target_feature": [5],
            "mean_delta": [-1.0],
            "clean_sd": [2.0],
        }
    )
    result = predict_from_loadings(edges, loadings)
    assert result.table().values.tolist() == [["A", "C", -0.375], ["B", "C", -0.125]]
    assert list(predict_from_loadings(edges, loadings, pd.Index(["B", "Z"])).scores.index) == ["B"]
    with pytest.raises(ScircuitError, match="none of the genes to knock down loads"):
        predict_from_loadings(edges, loadings, pd.Index(["Z"]))
    with pytest.raises(ScircuitError, match="both ends"):
        predict_from_loadings(edges.assign(target_layer=2), loadings)


def test_edges_onto_silent_targets_have_no_unit():
    edges, loadings = random_run(3)
    silent = edges.assign(clean_sd=np.where(np.arange(len(edges)) < 6, 0.0, edges["clean_sd"]))
    pd.testing.assert_frame_equal(
        predict_from_loadings(silent, loadings).scores, predict_from_loadings(edges.iloc[6:], loadings).scores
    )


def test_logit_definition_equals_the_sum_over_sources():
    _, loadings = random_run(4)
    logits = pd.DataFrame(
        {
            "source_layer": 0,
            "source_feature": [0, 0, 2, 5],
            "gene": ["G1", "X", "X", "G3"],
            "mean_delta": [-1.0, 0.5, 2.0, -0.25],
        }
    )
    scores, share = predict_from_logits(logits, loadings).scores, shares(loadings)
    for g in scores.index:
        expected = 0.5 * share.get((0, 0, g), 0.0) + 2.0 * share.get((0, 2, g), 0.0)
        assert scores.loc[g, "X"] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ScircuitError, match="mean_delta"):
        predict_from_logits(logits.drop(columns="mean_delta"), loadings)
    with pytest.raises(ScircuitError, match="no source"):
        predict_from_logits(logits.assign(source_layer=7), loadings)


def test_paper_weighting_equals_the_loop():
    circuit = planted_circuit(seed=1, n_layers=3, n_latents=20, n_sources=6).circuit
    # Few genes, so that several edges meet in one pair; ranks are those of the list.
    nodes = circuit.nodes.assign(
        top_genes=[[f"G{(i * 7 + k * 3) % 30}" for k in range(14)] for i in range(len(circuit.nodes))]
    )
    top = {(n.layer, n.feature): n.top_genes[:10] for n in nodes.itertuples()}
    sums: dict[tuple[str, str], list[float]] = {}
    for edge in circuit.edges.itertuples():
        for i, g in enumerate(top[edge.source_layer, edge.source_feature]):
            for k, j in enumerate(top[edge.target_layer, edge.target_feature]):
                if g != j:
                    entry = sums.setdefault((g, j), [0, 0.0, 0.0, 0.0])
                    weight = 1 / ((i + 1) * (k + 1))
                    entry[0] += 1
                    entry[1] += edge.cohens_d * weight
                    entry[2] += abs(edge.cohens_d) * weight
                    entry[3] = max(entry[3], abs(edge.cohens_d))
    expected = {pair: entry for pair, entry in sums.items() if entry[0] >= 2 or entry[3] > 2}
    table = paper_gene_pairs(circuit.edges, nodes)
    assert len(table) == len(expected)
    for row in table.itertuples():
        n, total, total_abs, _ = expected[row.source_gene, row.target_gene]
        assert row.n_edges == n
        assert row.mean_d == pytest.approx(total / n, rel=1e-5, abs=1e-7)
        assert row.mean_abs_d == pytest.approx(total_abs / n, rel=1e-5)
    scores = predict_paper(circuit.edges, nodes).scores
    assert scores.loc[table["source_gene"][0], table["target_gene"][0]] == pytest.approx(table["mean_d"][0])


def test_paper_weighting_drops_single_weak_edges():
    nodes = pd.DataFrame({"layer": [0, 1], "feature": [0, 0], "top_genes": [["A"], ["B"]]})
    edges = pd.DataFrame(
        {
            "source_layer": [0],
            "source_feature": [0],
            "target_layer": [1],
            "target_feature": [0],
            "cohens_d": [-2.5],
        }
    )
    assert paper_gene_pairs(edges, nodes)["mean_d"].tolist() == [-2.5]
    with pytest.raises(ScircuitError, match="predicts no pair"):
        predict_paper(edges.assign(cohens_d=-1.9), nodes)
