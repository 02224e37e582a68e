import numpy as np
import pandas as pd
import pytest
from labelled import LABELS, circuit_of, planted_pairs, random_targets
from scipy import stats

from scircuit.analysis.novelty import _evidence, novelty
from scircuit.errors import ScircuitError


def library(seed: int = 0, n_genes: int = 600, related: pd.DataFrame | None = None) -> dict[str, list[str]]:
    """Random gene sets; related labels share half of their genes."""
    rng = np.random.default_rng(seed)
    genes = np.array([f"G{i}" for i in range(n_genes)])
    sets = {label: list(rng.choice(genes, 15, replace=False)) for label in LABELS}
    for source, target in () if related is None else related.itertuples(index=False):
        sets[target] = sets[source][:8] + sets[target][8:]
    return sets


def test_random_targets_are_as_novel_as_expected():
    result = novelty(random_targets(0), library(), draws=300)
    share, fold = result["novel_share"], result["novel_fold"]
    assert share.estimate > 0.9
    assert share.null == pytest.approx(share.estimate, abs=0.02)
    assert fold.low <= 1 <= fold.high
    assert fold.p_value > 0.01


def test_edges_between_related_labels_are_less_novel_than_expected():
    pairs = pd.DataFrame({"source": LABELS[:30], "target": LABELS[30:60]})
    result = novelty(planted_pairs(0, pairs_with_all(pairs)), library(related=pairs), draws=300)
    assert result["novel_fold"].high < 1
    assert result["novel_fold"].p_value < 0.01
    known = result.table[result.table["known"]]
    top = known.assign(enriched=known["n_edges"] / known["expected_edges"])
    assert top["enriched"].median() > 1.5
    planted = set(pairs.itertuples(index=False, name=None))
    assert np.mean([pair in planted for pair in zip(known["source_label"], known["target_label"], strict=True)]) > 0.8


def pairs_with_all(pairs: pd.DataFrame) -> pd.DataFrame:
    """Every label sources may carry needs a wanted target."""
    rest = pd.DataFrame({"source": LABELS[30:40], "target": LABELS[60:70]})
    return pd.concat([pairs, rest], ignore_index=True)


def test_evidence_equals_hypergeometric_and_configuration_model():
    rng = np.random.default_rng(1)
    genes = [f"G{i}" for i in range(60)]
    sets = [list(rng.choice(genes, size, replace=False)) for size in (5, 12, 20, 8)]
    sets[3] = [*sets[1][:7], "G59"]
    links = pd.DataFrame(rng.choice(genes, (150, 2)), columns=["source", "target"])
    found = _evidence(sets, links, min_overlap=3, max_q=0.05)
    universe = sorted({g for s in sets for g in s})
    p = {}
    for i in range(4):
        for j in range(i + 1, 4):
            shared = len(set(sets[i]) & set(sets[j]))
            assert found["shared"][i, j] == shared
            p[i, j] = stats.hypergeom.sf(shared - 1, len(universe), len(set(sets[i])), len(set(sets[j])))
    adjacent = {
        frozenset(pair) for pair in links.to_numpy().tolist() if len(set(pair)) == 2 and set(pair) <= set(universe)
    }
    degree = {g: sum(g in pair for pair in adjacent) for g in universe}
    between = sum(frozenset((a, b)) in adjacent for a in sets[0] for b in sets[2] if a != b)
    assert found["links"][0, 2] == between
    expected = sum(degree[g] for g in sets[0]) * sum(degree[g] for g in sets[2]) / (2 * len(adjacent))
    assert found["expected_links"][0, 2] == pytest.approx(expected)
    without = _evidence(sets, None, min_overlap=3, max_q=0.05)["known"]
    q = stats.false_discovery_control(list(p.values()))
    for (i, j), value in zip(p, q, strict=True):
        assert without[i, j] == (value < 0.05 and found["shared"][i, j] >= 3)
    assert without[1, 3]


def test_a_network_links_labels_without_shared_genes():
    sets = [[f"A{i}" for i in range(10)], [f"B{i}" for i in range(10)], [f"C{i}" for i in range(30)]]
    links = pd.DataFrame([(f"A{i}", f"B{j}") for i in range(6) for j in range(6)], columns=["source", "target"])
    links = pd.concat([links, pd.DataFrame([(f"C{i}", f"C{i + 1}") for i in range(29)], columns=links.columns)])
    assert not _evidence(sets, None, 3, 0.05)["known"][0, 1]
    known = _evidence(sets, links, 3, 0.05)["known"]
    assert known[0, 1]
    assert not known[0, 2]


def test_expected_edges_add_up_and_the_published_rule_is_beside():
    circuit = random_targets(2)
    result = novelty(circuit, library(), draws=50)
    table = result.table
    assert table["n_edges"].sum() == result["novel_share"].n
    below = table["shared_genes"] < 3
    assert result["paper_novel_share"].estimate == pytest.approx(
        table.loc[below, "n_edges"].sum() / table["n_edges"].sum()
    )
    assert result["novel_label_pairs"].estimate > 0.9


def test_what_cannot_be_asked():
    circuit = random_targets(3)
    with pytest.raises(ScircuitError, match="no label of the circuit has a gene set"):
        novelty(circuit, {"other": ["A"]})
    with pytest.raises(ScircuitError, match="no edge lies between"):
        novelty(circuit, {LABELS[0]: ["A", "B"]})
    with pytest.raises(ScircuitError, match="'target'"):
        novelty(circuit, library(), network=pd.DataFrame({"source": ["A"]}))
    with pytest.raises(ScircuitError, match="no edge is reproducible"):
        novelty(circuit_of(circuit.edges.iloc[:0], circuit.nodes), library())
