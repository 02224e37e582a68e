import itertools
from collections import Counter

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from scircuit.features.annotation import CorrectedRule
from scircuit.features.queries import shuffle_top_genes
from scircuit.features.support import bin_degrees, draw_matched, network_support
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.networks import Network

N = 600
BACKGROUND = pd.DataFrame({"symbol": [f"G{i}" for i in range(N)], "ensembl_id": ""})


def network_of(graph: nx.Graph) -> Network:
    edges = pd.DataFrame([(f"G{a}", f"G{b}") for a, b in graph.edges], columns=["source", "target"])
    return Network("net", edges.assign(sign=0, score=1.0), False, "0" * 64)


def features_of(lists: list[list[int]]) -> pd.DataFrame:
    top = [[f"G{i}" for i in genes] for genes in lists]
    return pd.DataFrame({"layer": 0, "feature": range(len(top)), "top_genes": top})


@pytest.fixture(scope="module")
def graph() -> nx.Graph:
    """Hubs (G0-G119) linked at random by their degree, and a clique among genes of low degree."""
    weights = [30.0 if i < 120 else 4.0 for i in range(N)]
    graph = nx.expected_degree_graph(weights, seed=3, selfloops=False)
    graph.add_edges_from(itertools.combinations(range(200, 206), 2))
    return graph


def test_links_and_expectation_equal_networkx(graph):
    lists = [[*range(0, 10)], [*range(200, 206), 300, 301], [400, 401, 402]]
    table = network_support(features_of(lists), network_of(graph), BACKGROUND, draws=3000, max_draws=3000)
    for row, genes in zip(table.itertuples(), lists, strict=True):
        assert row.n_links == graph.subgraph(genes).number_of_edges()
        assert row.n_genes == len(genes)
    # An independent null: networkx degrees, the same bins recomputed, sets drawn one by one.
    degree = np.array([graph.degree(i) if i in graph else 0 for i in range(N)])
    bins = bin_degrees(degree).bin
    rng = np.random.default_rng(9)
    counts = []
    for _ in range(600):
        drawn: set[int] = set()
        for gene in lists[0]:
            drawn.add(int(rng.choice([g for g in np.flatnonzero(bins == bins[gene]) if g not in drawn])))
        counts.append(graph.subgraph(drawn).number_of_edges())
    error = np.std(counts) / np.sqrt(600)
    assert table["expected"][0] == pytest.approx(np.mean(counts), abs=4 * error)
    q = multipletests(table["p_value"], method="fdr_bh")[1]
    assert table["q_value"].tolist() == pytest.approx(q.tolist())


def test_a_clique_is_found_and_a_set_of_hubs_is_not(graph):
    hubs = list(range(10, 30))
    table = network_support(features_of([hubs, [*range(200, 206), 500]]), network_of(graph), BACKGROUND, max_draws=2000)
    hub, clique = table.to_dict("records")
    assert hub["n_links"] > 10  # many links, as many as hubs have
    assert hub["p_value"] > 0.05
    assert clique["n_links"] >= 15
    assert clique["p_value"] == pytest.approx(1 / 2001)
    assert clique["fold"] > 10


def test_p_is_calibrated_on_matched_random_sets(graph):
    rng = np.random.default_rng(4)
    lists = [sorted(rng.choice(120, 12, replace=False).tolist()) for _ in range(200)]
    p = network_support(features_of(lists), network_of(graph), BACKGROUND, draws=300, max_draws=300)["p_value"]
    assert stats.binomtest(int((p <= 0.1).sum()), 200, 0.1, alternative="greater").pvalue > 0.001
    assert p.mean() == pytest.approx(0.5, abs=0.12)  # ties of the count push it up a little


def test_latents_without_links_or_genes():
    graph = nx.path_graph(50)
    table = network_support(features_of([[100, 200], [3], [], [1, 2]]), network_of(graph), BACKGROUND, max_draws=1000)
    assert table["feature"].tolist() == [0, 3]  # fewer than two genes cannot be tested
    assert table["p_value"][0] == 1.0
    assert table["n_links"].tolist() == [0, 1]


def test_bins_hold_like_degrees_and_enough_genes():
    degree = np.r_[np.zeros(300, int), np.full(150, 1), np.full(40, 5), np.full(120, 9), np.full(30, 100)]
    bins = bin_degrees(degree)
    assert bins.size.min() >= 100
    assert bins.size.sum() == len(degree)
    for b in range(len(bins.size)):
        assert set(bins.genes[bins.start[b] : bins.start[b] + bins.size[b]]) == set(np.flatnonzero(bins.bin == b))
    assert [set(degree[bins.bin == b].tolist()) for b in range(len(bins.size))] == [{0}, {1, 5}, {9, 100}]


def test_draws_keep_bins_and_are_uniform_without_repeats():
    bins = bin_degrees(np.r_[np.zeros(100, int), np.full(100, 8)])
    genes = np.array([0, 1, 2, 150, 151])
    drawn = draw_matched(genes, bins, 4000, np.random.default_rng(0))
    assert (bins.bin[drawn] == bins.bin[genes]).all()
    assert all(len(set(row)) == 5 for row in drawn.tolist())
    counts = np.bincount(drawn[:, :3].ravel(), minlength=100)[:100]
    assert stats.chisquare(counts).pvalue > 1e-4


@given(st.lists(st.lists(st.integers(0, 12), max_size=5, unique=True), min_size=2, max_size=12), st.integers(0, 99))
def test_shuffling_keeps_sizes_and_gene_frequencies(lists, seed):
    features = features_of(lists)
    dealt = shuffle_top_genes(features, np.random.default_rng(seed))
    assert dealt["top_genes"].map(len).tolist() == [len(x) for x in lists]
    flat = [Counter(g for genes in table["top_genes"] for g in genes) for table in (features, dealt)]
    assert flat[0] == flat[1]


def test_shuffling_leaves_hardly_a_gene_twice():
    rng = np.random.default_rng(0)
    lists = [rng.choice(80, 20, replace=False).tolist() for _ in range(200)]
    dealt = shuffle_top_genes(features_of(lists), rng)
    assert sum(20 - len(set(genes)) for genes in dealt["top_genes"]) <= 5


def test_control_tells_signal_from_noise():
    rng = np.random.default_rng(1)
    sets = GeneSets.from_dict("lib", {f"s{j}": [f"G{g}" for g in range(30 * j, 30 * j + 30)] for j in range(20)})
    noise = [rng.choice(N, 15, replace=False).tolist() for _ in range(60)]
    signal = [rng.choice(np.arange(30 * (i % 20), 30 * (i % 20) + 30), 15, replace=False).tolist() for i in range(40)]
    planted = CorrectedRule([sets]).control(features_of(signal + noise + [[]]), BACKGROUND, draws=10, seed=0)
    assert planted.n_latents == 100
    assert planted.n_annotated >= 40
    assert planted.control < 0.05
    assert planted.beyond == pytest.approx(planted.annotated - planted.control)
    assert planted.p_value == pytest.approx(1 / 11)
    nothing = CorrectedRule([sets]).control(features_of(noise), BACKGROUND, draws=10, seed=0)
    assert nothing.annotated <= 0.1
    assert nothing.p_value > 1 / 11
