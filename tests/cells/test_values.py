"""What values are told from what: counts, estimates, logarithms, rates, zeros and ones; each with its one sentence."""

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scircuit.cells import values
from scircuit.cells.binning import BinningTokenizer
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError


@pytest.fixture
def rank(vocabulary):
    return RankValueTokenizer(vocabulary, 64)


@pytest.fixture
def droplets(cells) -> ad.AnnData:
    """The fixture's genes with counts as droplets have them: most of them 1."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.gamma(0.5, 3.0, 70), (40, 70)) * (rng.random((40, 70)) < 0.8)
    counts[:, 0] = 1
    return ad.AnnData(sparse.csr_matrix(counts.astype(float)), obs=cells.obs, var=cells.var)


def per(total):
    """Normalised to one total per cell."""
    return lambda x: x / x.sum(axis=1, keepdims=True) * total


def with_x(data, change):
    other = data.copy()
    other.X = sparse.csr_matrix(change(data.X.toarray()))
    return other


def corrected(x):
    """As SoupX and CellBender leave counts: a part of each is taken away."""
    return np.maximum(x - np.random.default_rng(2).uniform(0, 0.6, x.shape), 0)


def test_whole_numbers_with_noise_are_counts(droplets, rank, caplog):
    noise = np.random.default_rng(0).normal(0, 1e-6, droplets.shape)
    with caplog.at_level("INFO"):
        store = tokenize(with_x(droplets, lambda x: (x + noise).astype(np.float32)), rank)
    assert store.fingerprint == tokenize(droplets, rank).fingerprint
    assert caplog.text.count("holds whole numbers but for noise of up to") == 1
    with pytest.raises(ScircuitError, match="non-integer values"):
        tokenize(with_x(droplets, lambda x: x + (x > 0) * 0.01), rank)


@pytest.mark.parametrize(
    ("change", "estimate"),
    [
        (corrected, "ambient-corrected or estimated"),
        (lambda x: x * np.random.default_rng(3).choice([1, 0.5, 0.31], x.shape), "ambient-corrected or estimated"),
        (per(1e4), "normalised to one total per cell, without a logarithm"),
    ],
)
def test_estimates_are_a_way_in_and_no_logarithm_is_advised(droplets, rank, vocabulary, change, estimate):
    data = with_x(droplets, change)
    with pytest.raises(ScircuitError, match=f"{estimate}.*pass counts_kind='estimated'") as refused:
        tokenize(data, rank)
    assert "log1p" not in str(refused.value)
    with pytest.raises(ScircuitError, match="does not look like log1p"):
        tokenize(with_x(data, lambda x: x / x.max() * 15), rank, scale="log1p")
    store = tokenize(data, rank, counts_kind="estimated")
    assert store.info["counts_kind"] == "estimated"
    for i in range(5):
        score = data.X[i].toarray().ravel()[:60] / vocabulary.medians
        order = np.argsort(-score, kind="stable")[: (score > 0).sum()]
        assert store.gene[store.offsets[i] + 1 : store.offsets[i + 1] - 1].tolist() == order.tolist()
    binned = tokenize(data, BinningTokenizer(vocabulary, options={"binning": "midpoint"}), counts_kind="estimated")
    assert binned.values.max() <= 50


def test_normalised_values_have_the_ranks_of_the_counts(droplets, rank):
    expected = tokenize(droplets, rank)
    for kind in ({"counts_kind": "estimated"}, {"scale": "log1p"}):
        change = per(1e4) if "counts_kind" in kind else lambda x: np.log1p(per(1e4)(x)).astype(np.float32)
        assert tokenize(with_x(droplets, change), rank, **kind).fingerprint == expected.fingerprint


@pytest.mark.parametrize("genes", [slice(None), slice(0, 40)])
@pytest.mark.parametrize("change", [lambda x: np.log1p(per(1e4)(x)), lambda x: np.log1p(per(1e6)(x)), np.log1p])
def test_log1p_is_advised_where_it_is_what_the_data_look_like(droplets, rank, change, genes):
    data = with_x(droplets, lambda x: change(x).astype(np.float32))[:, genes]
    with pytest.raises(ScircuitError, match=r"looks normalised and log1p-transformed: pass scale='log1p'"):
        tokenize(data, rank)
    with pytest.raises(ScircuitError, match=r"X is no count: .* pass scale='log1p'"):
        tokenize(data, rank, counts_kind="estimated")
    assert tokenize(data, rank, scale="log1p").fingerprint == tokenize(droplets[:, genes], rank).fingerprint


@pytest.mark.parametrize(("base", "name"), [(2, "log2"), (10, "log10")])
def test_other_logarithms_are_named(droplets, rank, base, name):
    data = with_x(droplets, lambda x: np.log1p(per(1e4)(x)) / np.log(base))
    for asked in ({}, {"counts_kind": "estimated"}, {"scale": "log1p"}):
        with pytest.raises(ScircuitError, match=rf"{name} of 1 \+ normalised counts: undo it \({base}\*\*X - 1\)"):
            tokenize(data, rank, **asked)


def test_scale_log1p_on_what_is_none_is_refused(droplets, rank):
    with pytest.raises(ScircuitError, match=r"X is no log1p: it holds .* at cell"):
        tokenize(with_x(droplets, per(1e6)), rank, scale="log1p")
    with pytest.raises(ScircuitError, match="does not look like log1p"):
        tokenize(with_x(droplets, lambda x: np.minimum(x, 15)), rank, scale="log1p")
    with pytest.raises(ScircuitError, match="exclude each other"):
        tokenize(droplets, rank, scale="log1p", counts_kind="estimated")
    with pytest.raises(ScircuitError, match="it may be 'whole' or 'estimated'"):
        tokenize(droplets, rank, counts_kind="tpm")


def test_zeros_and_ones_and_rounded_rates_are_recognised(droplets, rank):
    for kind in ("whole", "estimated"):
        with pytest.raises(ScircuitError, match="X holds only 0 and 1: which genes were seen, not how often"):
            tokenize(with_x(droplets, lambda x: x > 0), rank, counts_kind=kind)
    rounded = with_x(droplets, lambda x: np.round(per(1e6)(x)))
    with pytest.raises(ScircuitError, match="looks like rounded CPM or TPM: cells sum to about 1,000,000"):
        tokenize(rounded, rank)
    tokenize(rounded, rank, counts_kind="estimated")


def test_depth_made_equal_by_drawing_counts_is_no_rate(droplets):
    rng = np.random.default_rng(4)
    x = droplets.X.toarray()
    drawn = np.stack([rng.multinomial(40, row / row.sum()) for row in x]).astype(float)
    assert values.one_total(sparse.csr_matrix(drawn), 0.0)
    assert not values.is_rounded_rate(sparse.csr_matrix(drawn))


@pytest.mark.parametrize(
    "spoil", [lambda x: x - 1.5, lambda x: np.where(x > 1, np.nan, x), lambda x: np.log1p(per(1e4)(x))]
)
def test_every_refusal_names_the_place_that_holds_counts(droplets, rank, spoil):
    data = with_x(droplets, spoil)
    data.raw = droplets
    with pytest.raises(ScircuitError, match="pass counts='raw', which holds whole numbers"):
        tokenize(data, rank)
    data.raw = with_x(droplets, lambda x: np.log1p(per(1e4)(x)))
    if not np.array_equal(data.X.toarray(), data.raw.X.toarray()):
        with pytest.raises(ScircuitError, match="pass counts='raw' and scale='log1p'"):
            tokenize(data, rank)
