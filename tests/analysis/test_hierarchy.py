from dataclasses import replace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import circuit_of, random_targets
from scipy import sparse

from scircuit.analysis.hierarchy import hierarchy, pagerank
from scircuit.errors import ScircuitError


@given(seed=st.integers(0, 1000), n=st.integers(2, 30))
def test_pagerank_equals_networkx(seed, n):
    dense = np.random.default_rng(seed).random((n, n)) < 0.2
    np.fill_diagonal(dense, False)
    expected = nx.pagerank(
        nx.from_numpy_array(dense.astype(float), create_using=nx.DiGraph), tol=1e-10, max_iter=10_000
    )
    found = pagerank(sparse.csr_array(dense.astype(float)))
    np.testing.assert_allclose(found, [expected[i] for i in range(n)], atol=1e-7)
    assert found.sum() == pytest.approx(1.0)


def test_shape_equals_networkx():
    circuit = random_targets(0, n_layers=4, degree=10)
    result = hierarchy(circuit, draws=20, min_edges=2, min_abs_d=1.0)
    label = circuit.nodes.set_index(["layer", "feature"])["label"]
    ends = [
        label.loc[pd.MultiIndex.from_frame(circuit.edges[[f"{e}_layer", f"{e}_feature"]])].to_numpy()
        for e in ("source", "target")
    ]
    pairs = pd.DataFrame({"s": ends[0], "t": ends[1], "d": circuit.edges["cohens_d"].abs()})
    pairs = pairs[(pairs["s"] != "unlabelled") & (pairs["t"] != "unlabelled") & (pairs["s"] != pairs["t"])]
    grouped = pairs.groupby(["s", "t"])["d"].agg(["size", "mean"])
    graph = nx.DiGraph(list(grouped.index))
    assert result["n_pairs"].estimate == graph.number_of_edges()
    assert result["n_reciprocal"].estimate == sum(graph.has_edge(t, s) for s, t in graph.edges) / 2
    strong = nx.DiGraph(list(grouped[(grouped["size"] >= 2) & (grouped["mean"] > 1)].index))
    components = [c for c in nx.strongly_connected_components(strong) if len(c) > 1]
    assert result["largest_component"].estimate == max(map(len, components))
    table = result.table.set_index("label")
    for component in components:
        codes = table.loc[list(component), "component"]
        assert codes.nunique() == 1
        assert codes.iloc[0] >= 0
    assert (table["component"] >= 0).sum() == sum(map(len, components))
    assert table["n_as_source"].sum() == table["n_as_target"].sum()


def test_random_targets_have_chance_circles_and_depths():
    result = hierarchy(random_targets(1), draws=300, min_source_layers=2)
    reciprocal = result["n_reciprocal"]
    assert reciprocal.estimate == pytest.approx(reciprocal.null, rel=0.2)
    assert reciprocal.p_value > 0.01
    assert result["timed_share"].n > 3
    assert result["timed_share"].estimate < 0.3
    judged = result.table.dropna(subset="depth_p")
    assert (judged["source_layers"] >= 2).all()
    np.testing.assert_allclose(judged["depth_fraction"], judged["depth_null"], atol=0.12)


def test_a_label_whose_deep_latents_act_is_late():
    """Latents of one label lie in every layer, but only the deep ones have edges beyond one each."""
    rng = np.random.default_rng(2)
    n_layers, width = 5, 60
    layer, feature = np.divmod(np.arange(n_layers * width), width)
    label = np.array([f"p{i}" for i in rng.integers(6, size=len(layer))], dtype=object)
    late = feature < 12
    label[late] = "late"
    nodes = pd.DataFrame({"layer": layer, "feature": feature, "label": label})
    rows = []
    for source_layer in range(n_layers - 1):
        for source in range(width):
            own = label[source_layer * width + source] == "late"
            degree = (1 if source_layer < 2 else 20) if own else 10
            target = rng.choice(np.arange(12, width), degree, replace=False)
            rows.append(pd.DataFrame({"target_feature": target}).assign(
                source_layer=source_layer, source_feature=source, target_layer=source_layer + 1
            ))  # fmt: skip
    edges = pd.concat(rows, ignore_index=True)
    circuit = circuit_of(edges.assign(cohens_d=rng.normal(size=len(edges))), nodes)
    row = hierarchy(circuit, draws=600).table.set_index("label").loc["late"]
    assert row["depth_fraction"] > row["depth_null"]
    assert row["depth_q"] < 0.05
    assert row["is_source"]


def test_labels_of_few_source_layers_are_not_timed():
    result = hierarchy(random_targets(3), draws=10, min_source_layers=3)
    assert result.table["depth_q"].isna().all()
    assert np.isnan(result["timed_share"].estimate)


def test_what_cannot_be_asked():
    circuit = random_targets(4)
    with pytest.raises(ScircuitError, match="no edge has a label at both ends"):
        hierarchy(replace(circuit, nodes=circuit.nodes.assign(label="unlabelled")))
    with pytest.raises(ScircuitError, match="no edge is reproducible"):
        hierarchy(circuit_of(circuit.edges.iloc[:0], circuit.nodes))
