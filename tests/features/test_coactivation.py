import itertools

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from scircuit.errors import ScircuitError
from scircuit.features.catalogue import build_catalogue
from scircuit.features.coactivation import Limits, find_modules, match_layers


def test_counts_pmi_and_npmi_equal_a_loop(toy_model, toy_saes, toy_cells, toy_batches):
    catalogue = build_catalogue(
        toy_model, toy_batches, toy_saes, coactivation=Limits(min_both=2, min_pmi=0.1), rows_per_block=13
    )
    n = sum(map(len, toy_cells))
    expected = {}
    for layer, sae in toy_saes.items():
        fires = []
        for cell, genes in enumerate(toy_cells):
            for gene in genes:
                fires.append(sae.encode(toy_model.table[layer][gene, cell % 2][None]).dense(20)[0] > 0)
        fires = torch.stack(fires).numpy()
        for a, b in itertools.combinations(range(20), 2):
            both = int((fires[:, a] & fires[:, b]).sum())
            if both < 2:
                continue
            pmi = np.log2((both / n) / (fires[:, a].mean() * fires[:, b].mean()))
            if pmi >= 0.1:
                expected[layer, a, b] = (both, pmi, pmi / -np.log2(both / n))
    got = {(r.layer, r.feature_a, r.feature_b): (r.n_both, r.pmi, r.npmi) for r in catalogue.coactivation.itertuples()}
    assert got.keys() == expected.keys()
    assert len(got) > 10
    for key, values in expected.items():
        assert got[key] == pytest.approx(values)


def test_not_counted_unless_asked_for(toy_model, toy_saes, toy_batches, tmp_path):
    catalogue = build_catalogue(toy_model, toy_batches, toy_saes)
    assert catalogue.coactivation is None
    catalogue.write(tmp_path)
    assert not (tmp_path / "coactivation.parquet").exists()


@pytest.fixture(scope="module")
def two_cliques():
    pairs = [*itertools.combinations(range(0, 6), 2), *itertools.combinations(range(10, 14), 2), (20, 21), (0, 10)]
    table = pd.DataFrame(pairs, columns=["feature_a", "feature_b"]).assign(layer=3, npmi=0.5)
    table.loc[len(table) - 1, "npmi"] = 0.05
    return table


@pytest.mark.parametrize("method", ["louvain", "leiden"])
def test_planted_modules_are_found(two_cliques, method):
    if method == "leiden":
        pytest.importorskip("leidenalg", reason="leidenalg is an extra")
    modules = find_modules(two_cliques, method=method)
    groups = modules.groupby("module")["feature"].apply(list).to_dict()
    assert groups == {0: list(range(6)), 1: list(range(10, 14))}  # the pair 20-21 is smaller than a module
    assert set(modules["layer"]) == {3}


def test_louvain_is_networkx_and_repeatable(two_cliques):
    graph = nx.Graph()
    graph.add_weighted_edges_from(two_cliques[["feature_a", "feature_b", "npmi"]].itertuples(index=False, name=None))
    expected = {frozenset(g) for g in nx.community.louvain_communities(graph, seed=7) if len(g) > 2}
    modules = find_modules(two_cliques, seed=7)
    assert {frozenset(g) for g in modules.groupby("module")["feature"].apply(list)} == expected
    with pytest.raises(ScircuitError, match="'kmeans' is unknown; it may be louvain or leiden"):
        find_modules(two_cliques, method="kmeans")


@pytest.mark.parametrize("block", [3, 1000])
def test_matches_equal_a_loop(block):
    generator = torch.Generator().manual_seed(0)
    decoders = {layer: torch.randn(12, 5, generator=generator) for layer in (0, 1, 4)}
    decoders[4][7] = -3 * decoders[0][2]  # the same line, other sign and length
    got = match_layers(decoders, min_cosine=0.6, block=block)
    expected = {}
    for a, b in itertools.combinations(decoders, 2):
        left, right = decoders[a].numpy(), decoders[b].numpy()
        cosine = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in right] for x in left])
        for i in range(12):
            j = int(np.abs(cosine[i]).argmax())
            if abs(cosine[i, j]) >= 0.6:
                expected[a, i, b, j] = (cosine[i, j], int(np.abs(cosine[:, j]).argmax()) == i)
    assert {(r.layer_a, r.feature_a, r.layer_b, r.feature_b): (r.cosine, r.mutual) for r in got.itertuples()} == {
        key: (pytest.approx(value[0], abs=1e-6), value[1]) for key, value in expected.items()
    }
    planted = got[(got["layer_a"] == 0) & (got["feature_a"] == 2) & (got["layer_b"] == 4)].iloc[0]
    assert (planted["feature_b"], planted["cosine"]) == (7, pytest.approx(-1.0))
