"""Tokenizers against the published rules written out naively, and against the pitfalls of real files."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from scircuit.cells.batch import Role
from scircuit.cells.binning import BinningTokenizer, quantile_bins
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.cells.vocabulary import Vocabulary, read_vocabulary, write_vocabulary
from scircuit.errors import ScircuitError


def naive_rank_value(counts, ids, vocabulary, max_length):
    """TranscriptomeTokenizer as described (MODELS): one dict per gene, Python's stable sort."""
    token = dict(zip(vocabulary.genes["ensembl_id"], vocabulary.genes["token"], strict=True))
    median = dict(zip(vocabulary.genes["ensembl_id"], vocabulary.medians, strict=True))
    summed = {}
    for name, count in zip(ids, counts, strict=True):
        if name in token and count:
            summed[name] = summed.get(name, 0) + count
    order = sorted((n for n in token if n in summed), key=lambda n: -(summed[n] / median[n]))
    return [2, *[token[n] for n in order][: max_length - 2], 3]


@pytest.fixture
def rank(vocabulary):
    return RankValueTokenizer(vocabulary, 30)


@pytest.fixture
def scgpt_vocabulary(vocabulary):
    genes = vocabulary.genes.assign(token=np.arange(60))
    return Vocabulary(genes, {"<pad>": 60, "<cls>": 61})


def test_rank_value_equals_the_naive_description(rank, cells):
    store = tokenize(cells, rank)
    x = cells.X.toarray()
    assert store.lengths.max() == 30, "some cells must be truncated"
    for i in range(len(store)):
        expected = naive_rank_value(x[i], cells.var_names, rank.vocabulary, 30)
        batch = store.batch(np.array([i]))
        assert batch.tokens[0].tolist() == expected
        genes = batch.gene[0][batch.is_gene[0]]
        assert rank.vocabulary.genes["token"].to_numpy()[genes].tolist() == expected[1:-1]
        assert batch.role[0][[0, -1]].tolist() == [Role.CLS, Role.EOS]


def test_columns_that_map_to_one_gene_are_summed_and_versions_stripped(rank, cells):
    names = [*(f"{n}.{i % 9 + 1}" for i, n in enumerate(cells.var_names)), *cells.var_names[:2]]
    doubled = ad.AnnData(cells.X[:, [*range(70), 0, 1]], obs=cells.obs, var=pd.DataFrame(index=names))
    store = tokenize(doubled, rank)
    x = doubled.X.toarray()
    ids = [n.split(".")[0] for n in doubled.var_names]
    for i in range(len(store)):
        assert store.batch(np.array([i])).tokens[0].tolist() == naive_rank_value(x[i], ids, rank.vocabulary, 30)


def test_a_depth_factor_changes_no_rank(rank, cells):
    deeper = cells.copy()
    deeper.X = deeper.X * 7
    assert tokenize(deeper, rank).fingerprint == tokenize(cells, rank).fingerprint


def test_ties_keep_vocabulary_order():
    genes = pd.DataFrame({"ensembl_id": ["A", "B", "C", "D"], "symbol": list("abcd"), "token": [0, 1, 2, 3]})
    tokenizer = RankValueTokenizer(Vocabulary(genes, {"<pad>": 9}, np.ones(4)), 10)
    cell = tokenizer.cell(np.arange(4), np.array([1.0, 2.0, 1.0, 2.0]), 6.0, "c")
    assert cell.tokens.tolist() == [1, 3, 0, 2]
    assert (cell.role == Role.GENE).all(), "no <cls>/<eos> where the series has none"


def test_paper_protocol_is_log1p_before_the_median(rank, cells, vocabulary):
    paper = RankValueTokenizer(vocabulary, 30, protocol="paper")
    x = cells.X.toarray()
    store = tokenize(cells, paper)
    for i in range(len(store)):
        known = x[i, :60]
        gene = np.flatnonzero(known)
        score = np.log1p(known[gene] / x[i].sum() * 1e4) / vocabulary.medians[gene]
        expected = vocabulary.genes["token"].to_numpy()[gene[np.argsort(-score, kind="stable")]][:28]
        assert store.batch(np.array([i])).tokens[0][1:-1].tolist() == expected.tolist()
    assert paper.fingerprint != rank.fingerprint


@given(st.lists(st.integers(1, 40), min_size=2, max_size=80))
def test_bins_equal_the_published_formula_for_the_same_draws(values):
    x = np.array(values, dtype=float)
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    edges = np.quantile(x, np.linspace(0, 1, 50))
    left, right = np.digitize(x, edges), np.digitize(x, edges, right=True)
    draw = again.random(len(x))
    expected = np.ceil(draw * (right - left) + left)
    got = quantile_bins(x, 51, rng)
    assert (got == np.maximum(expected, 1)).all()
    assert got.min() >= 1
    assert got.max() <= 50
    middle = quantile_bins(x, 51, None)
    order = rankdata(x, method="dense")
    assert all((np.diff(middle[np.argsort(order)]) >= 0).tolist()), "midpoint bins rise with the value"
    # A monotone map moves no value across an edge, but rounding decides about an edge that lies on a value.
    on_an_edge = (np.abs(edges - x[:, None]) <= 1e-9 * x.max()).any(axis=1)
    assert (np.abs(quantile_bins(np.log1p(x) * 3, 51, None) - middle) <= on_an_edge).all()


def test_scgpt_sequence(scgpt_vocabulary, cells):
    tokenizer = BinningTokenizer(scgpt_vocabulary, max_length=20)
    store = tokenize(cells, tokenizer)
    x = cells.X.toarray()[:, :60]
    for i in range(len(store)):
        b = store.batch(np.array([i]))
        assert b.tokens[0, 0] == 61
        assert b.values[0, 0] == -2
        genes = b.gene[0, 1:]
        assert set(genes) <= set(np.flatnonzero(x[i]))
        assert len(genes) == min(19, np.count_nonzero(x[i]))
        assert b.values[0, 1:].min() >= 1
    padded = store.batch(np.argsort(store.lengths)[[0, -1]])
    at = padded.role == Role.PAD
    assert at.any()
    assert (padded.tokens[at] == 60).all()
    assert (padded.values[at] == -2).all()


def test_random_bins_belong_to_the_cell_not_to_the_batch(scgpt_vocabulary, cells):
    tokenizer = BinningTokenizer(scgpt_vocabulary, max_length=20)
    whole = tokenize(cells, tokenizer)
    part = tokenize(cells, tokenizer, rows=np.array([11, 4]))
    for mine, theirs in ((0, 11), (1, 4)):
        a, b = part.batch(np.array([mine])), whole.batch(np.array([theirs]))
        assert (a.tokens == b.tokens).all()
        assert (a.values == b.values).all()
    reseeded = BinningTokenizer(scgpt_vocabulary, max_length=20, options={"seed": 1})
    assert (tokenize(cells, reseeded).values != whole.values).any()
    fixed = BinningTokenizer(scgpt_vocabulary, max_length=100, options={"binning": "midpoint"})
    again = BinningTokenizer(scgpt_vocabulary, max_length=100, options={"binning": "midpoint", "seed": 9})
    assert (tokenize(cells, fixed).values == tokenize(cells, again).values).all()


def test_scgpt_paper_protocol_keeps_the_largest_raw_values(scgpt_vocabulary, cells):
    store = tokenize(cells, BinningTokenizer(scgpt_vocabulary, max_length=12, protocol="paper"))
    x = cells.X.toarray()[:, :60]
    for i in range(len(store)):
        b = store.batch(np.array([i]))
        assert b.role[0, 0] == Role.GENE
        expected = np.sort(x[i])[::-1][: b.values.shape[1]]
        assert b.values[0].tolist() == expected.tolist()


def test_wrong_options_are_refused(vocabulary, scgpt_vocabulary):
    with pytest.raises(ScircuitError, match="'official' or 'paper'"):
        RankValueTokenizer(vocabulary, 30, protocol="offical")
    with pytest.raises(ScircuitError, match="no option 'binning'"):
        RankValueTokenizer(vocabulary, 30, options={"binning": "sampled"})
    with pytest.raises(ScircuitError, match="'sampled' or 'midpoint'"):
        BinningTokenizer(scgpt_vocabulary, options={"binning": "median"})


def test_store_and_vocabulary_survive_a_file(tmp_path, rank, cells):
    store = tokenize(cells, rank)
    store.write(tmp_path)
    back = TokenStore.read(tmp_path)
    assert back.fingerprint == store.fingerprint
    assert back.cells.index.tolist() == store.cells.index.tolist()
    assert back.info == store.info
    write_vocabulary(tmp_path / "v.json", rank.vocabulary)
    assert read_vocabulary(tmp_path / "v.json").fingerprint == rank.vocabulary.fingerprint
    part = store.subset(np.array([3, 1]))
    assert part.batch(np.array([1])).tokens.tolist() == store.batch(np.array([1])).tokens.tolist()


def test_batches_cover_every_cell_once(rank, cells):
    store = tokenize(cells, rank)
    for by_length in (True, False):
        seen = np.concatenate([b.cell for b in store.batches(7, by_length=by_length)])
        assert sorted(seen) == list(range(40))
    batch = store.batch(np.array([0, 1, 2]))
    taken = batch.take(np.array([1, 1]))
    assert taken.tokens.shape == (2, batch.lengths[1])
    assert (taken.tokens[0] == taken.tokens[1]).all()
