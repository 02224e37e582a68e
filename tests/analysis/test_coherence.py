from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scircuit.analysis.coherence import TermMatch, _tally, coherence
from scircuit.analysis.nodes import NodeIndex
from scircuit.analysis.strata import node_strata, rank_bins
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError


@pytest.fixture(scope="module")
def base():
    """Sources and targets with unrelated gene sets."""
    return planted_circuit(n_layers=3, n_latents=150, n_sources=15, term_affinity=0, n_directions=1, seed=2).circuit


def with_random_targets(circuit, rng):
    """The same sources, as many edges, targets drawn blindly with annotation-rich ones preferred."""
    n_terms = circuit.terms.groupby(["layer", "feature"]).size()
    edges = circuit.edges.copy()
    for layer, rows in edges.groupby("target_layer").groups.items():
        weight = n_terms.loc[layer]
        edges.loc[rows, "target_feature"] = rng.choice(
            weight.index.to_numpy(), len(rows), p=(weight / weight.sum()).to_numpy()
        )
    return replace(circuit, edges=edges, controls=circuit.controls.iloc[:0])


def test_random_targets_give_a_fold_of_one_and_no_more_p_than_nominal(base):
    rng = np.random.default_rng(0)
    results = [coherence(with_random_targets(base, rng), draws=99, seed=i) for i in range(100)]
    folds = [r["fold"].estimate for r in results]
    assert np.mean(folds) == pytest.approx(1, abs=0.03)
    for name in ("fold", "best_match_fold"):
        p = np.array([r[name].p_value for r in results])
        # 0.05 + 3 standard errors of 100 circuits.
        assert (p <= 0.05).mean() <= 0.115
        assert (p <= 0.5).mean() > 0.35


def test_planted_sets_are_found(base):
    planted = planted_circuit(n_layers=3, n_latents=150, n_sources=15, term_affinity=0.6, seed=2).circuit
    fold = coherence(planted)["fold"]
    assert fold.low > 1.2
    assert fold.p_value == 1 / 1001


def test_shares_and_nulls_agree_with_a_loop(base):
    """Observed by sets of strings; expected exactly, as the mean over each target's stratum."""
    result = coherence(base, draws=400, n_bins=3)
    terms = {k: set(v) for k, v in base.terms.groupby(["layer", "feature"])["term"]}
    content = dict(zip(base.terms["term"], base.terms["information_content"], strict=True))
    nodes = base.nodes
    n_terms = np.array([len(terms.get(k, ())) for k in zip(nodes["layer"], nodes["feature"], strict=True)])
    strata = node_strata(nodes, n_terms, n_bins=3)
    key = list(zip(nodes["layer"], nodes["feature"], strict=True))
    row = {k: i for i, k in enumerate(key)}
    observed, expected, best = [], [], []
    for edge in base.edges.itertuples():
        own = terms.get((edge.source_layer, edge.source_feature), set())
        target = row[(edge.target_layer, edge.target_feature)]
        if not own or not n_terms[target]:
            continue
        alike = np.flatnonzero(strata.code == strata.code[target])
        expected.append(np.mean([bool(own & terms[key[i]]) for i in alike]))
        shared = own & terms[key[target]]
        observed.append(bool(shared))
        best.append(max((content[t] for t in shared), default=0))
    share = result["coherent_share"]
    assert share.n == len(observed)
    assert share.estimate == pytest.approx(np.mean(observed))
    assert share.null == pytest.approx(np.mean(expected), rel=1e-9)
    assert result["best_match"].estimate == pytest.approx(np.mean(best), rel=1e-5)
    assert result.table["n_edges"].sum() == len(observed)


def test_many_edges_are_judged_as_few_are(base, monkeypatch):
    """Totals drawn from the normal distribution spread as totals over redrawn targets do."""
    index = NodeIndex.of(base.nodes)
    match = TermMatch(base, index)
    strata = node_strata(base.nodes, match.n_terms, 10, 20)
    few, many = [], []
    for limit, kept in ((1_000_000, few), (0, many)):
        monkeypatch.setattr("scircuit.analysis.coherence.MANY_EDGES", limit)
        kept.append(_tally(base.edges, index, match, strata, np.random.default_rng(0), 4000).drawn)
    for a, b in zip(few[0], many[0], strict=True):
        assert a.mean() == pytest.approx(b.mean(), rel=0.01)
        assert a.std() == pytest.approx(b.std(), rel=0.06)
        assert stats.ks_2samp(a, b).pvalue > 1e-4 or len(np.unique(a)) < 200


def test_random_directions_are_asked_the_same(base):
    measures = set(coherence(base, draws=50).measures["measure"])
    assert {"random_fold", "random_coherent_share", "random_best_match"} <= measures


def test_without_annotation_there_is_no_answer(base):
    with pytest.raises(ScircuitError, match="annotated ends"):
        coherence(replace(base, terms=base.terms.iloc[:0]))


def test_strata_exchange_like_with_like(base):
    nodes = base.nodes
    strata = node_strata(nodes)
    drawn = strata.draw(np.arange(len(nodes)), (50, len(nodes)), np.random.default_rng(0))
    layer, rate = nodes["layer"].to_numpy(), nodes["frequency"].to_numpy()
    assert (layer[drawn] == layer).all()
    own = np.corrcoef(np.log(rate[drawn]).mean(axis=0), np.log(rate))[0, 1]
    assert own > 0.9
    assert (np.sort(strata.members) == np.arange(len(nodes))).all()


def test_silent_latents_take_no_part(base):
    nodes = base.nodes.assign(n_firings=np.where(base.nodes["feature"] < 10, 0, 5))
    strata = node_strata(nodes)
    assert (strata.code[(nodes["feature"] < 10).to_numpy()] == -1).all()
    assert not np.isin(strata.members, np.flatnonzero(nodes["feature"] < 10)).any()


def test_equal_values_share_a_bin():
    assert rank_bins(np.array([3, 1, 1, 1, 2, 2.0]), 3).tolist() == [2, 0, 0, 0, 2, 2]
    assert rank_bins(np.arange(10.0), 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert rank_bins(np.array([]), 4).tolist() == []
    assert len(pd.unique(rank_bins(np.ones(7), 10))) == 1
