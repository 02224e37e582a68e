import tracemalloc
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scircuit.errors import ScircuitError
from scircuit.features.accumulate import PairSums, top_per_group
from scircuit.features.catalogue import Catalogue, build_catalogue
from scircuit.features.cells import TopCells
from scircuit.features.coactivation import Limits
from scircuit.features.detectors import one_gene_shares


@pytest.fixture(scope="module")
def catalogue(toy_model, toy_saes, toy_batches) -> Catalogue:
    return build_catalogue(toy_model, toy_batches, toy_saes, min_firings=3, n_top_genes=4, n_top_cells=5)


@pytest.fixture(scope="module")
def loop(toy_model, toy_saes, toy_cells):
    """Every firing as (layer, latent) -> list of (cell, gene, value), position by position."""
    firings = defaultdict(list)
    for layer, sae in toy_saes.items():
        for cell, genes in enumerate(toy_cells):
            for gene in genes:
                dense = sae.encode(toy_model.table[layer][gene, cell % 2][None]).dense(sae.W_dec.shape[0])[0]
                for latent in torch.nonzero(dense > 0)[:, 0].tolist():
                    firings[layer, latent].append((cell, int(gene), float(dense[latent])))
    return firings


def test_every_number_equals_a_plain_loop(catalogue, loop, toy_cells, toy_model):
    n_positions = sum(map(len, toy_cells))
    assert catalogue.meta["n_positions"] == n_positions
    assert catalogue.meta["n_cells"] == len(toy_cells)
    assert len(catalogue.features) == 2 * 20
    for row in catalogue.features.itertuples():
        seen = loop.get((row.layer, row.feature), [])
        values = [v for *_, v in seen]
        assert row.n_firings == len(seen)
        assert row.frequency == pytest.approx(len(seen) / n_positions)
        assert row.mean_activation == pytest.approx(np.mean(values) if values else 0.0)
        assert row.max_activation == pytest.approx(max(values, default=0.0))
        assert row.n_cells == len({c for c, *_ in seen})
        if values:
            exact = np.quantile(values, 0.5, method="inverted_cdf")
            assert row.q50 == pytest.approx(exact, rel=2 ** (1 / 32) - 1 + 1e-6)
        per_gene = defaultdict(list)
        for _, gene, value in seen:
            per_gene[gene].append(value)
        profile = catalogue.genes[(catalogue.genes["layer"] == row.layer) & (catalogue.genes["feature"] == row.feature)]
        got = {
            g: (n, m) for g, n, m in zip(profile["gene"], profile["n_firings"], profile["mean_activation"], strict=True)
        }
        assert got == {
            toy_model.genes["symbol"][g]: (len(v), pytest.approx(np.mean(v), rel=1e-6)) for g, v in per_gene.items()
        }
        enough = [(-np.mean(v), g) for g, v in per_gene.items() if len(v) >= 3]
        assert list(row.top_genes) == [toy_model.genes["symbol"][g] for _, g in sorted(enough)[:4]]


def test_top_cells_are_ranked_by_mean_over_gene_positions(catalogue, loop, toy_cells):
    for (layer, latent), seen in loop.items():
        score = defaultdict(float)
        for cell, _, value in seen:
            score[cell] += value / len(toy_cells[cell])
        expected = sorted(score.items(), key=lambda item: (-np.float32(item[1]), item[0]))[:5]
        got = catalogue.cells[(catalogue.cells["layer"] == layer) & (catalogue.cells["feature"] == latent)]
        assert got["rank"].tolist() == list(range(len(expected)))
        assert got["activation"].tolist() == pytest.approx([v for _, v in expected], rel=1e-6)
        assert set(got["cell"]) <= set(score)


@pytest.mark.parametrize("size", [1, 4, 30])
def test_batches_and_blocks_do_not_matter(catalogue, toy_model, toy_saes, toy_cells, batched, size):
    other = build_catalogue(
        toy_model, iter(batched(toy_cells, size)), toy_saes, min_firings=3, n_top_genes=4, n_top_cells=5,
        rows_per_block=11,
    )  # fmt: skip
    pd.testing.assert_frame_equal(catalogue.features, other.features)
    pd.testing.assert_frame_equal(catalogue.genes, other.genes)


def test_background_is_what_was_tokenised(catalogue, toy_cells):
    counts = pd.Series(np.concatenate(toy_cells)).value_counts()
    expected = {f"G{gene}": n for gene, n in counts.items()}
    assert dict(zip(catalogue.background["symbol"], catalogue.background["n_positions"], strict=True)) == expected


def test_written_and_read_back(catalogue, tmp_path):
    catalogue.write(tmp_path)
    again = Catalogue.read(tmp_path)
    for name in ("features", "genes", "background", "cells"):
        left, right = getattr(catalogue, name), getattr(again, name)
        if name == "features":
            assert left["top_genes"].map(list).tolist() == right["top_genes"].map(list).tolist()
            left, right = left.drop(columns="top_genes"), right.drop(columns="top_genes")
        pd.testing.assert_frame_equal(left, right)
    assert again.meta == catalogue.meta
    (tmp_path / "genes.parquet").unlink()
    with pytest.raises(ScircuitError, match=r"lacks genes\.parquet"):
        Catalogue.read(tmp_path)


def test_a_dead_latent_stays_in_the_table(toy_model, toy_batches, toy_saes):
    silent = type(toy_saes[0])(torch.cat([toy_saes[0].W_dec, torch.zeros(1, 8)]))
    features = build_catalogue(toy_model, toy_batches, {0: silent}).features
    dead = features.iloc[-1]
    assert (dead["feature"], dead["n_firings"], dead["n_cells"], dead["mean_activation"]) == (20, 0, 0, 0.0)
    assert list(dead["top_genes"]) == []


class Dense:
    """Another library's object: dense activations, a decoder, and nothing else."""

    def __init__(self, sae):
        self._sae, self.W_dec = sae, sae.W_dec

    def encode(self, h):
        return self._sae.encode(h).dense(self._sae.n_latents)

    def decode(self, z):
        return z @ self.W_dec


def test_objects_of_other_libraries_serve_as_they_are(catalogue, toy_model, toy_saes, toy_batches):
    foreign = {layer: Dense(sae) for layer, sae in toy_saes.items()}
    other = build_catalogue(toy_model, toy_batches, foreign, min_firings=3, n_top_genes=4, n_top_cells=5)
    pd.testing.assert_frame_equal(catalogue.features, other.features)
    assert one_gene_shares(toy_model, foreign, toy_batches) == one_gene_shares(toy_model, toy_saes, toy_batches)
    with pytest.raises(ScircuitError, match="lacks encode, decode, W_dec"):
        build_catalogue(toy_model, toy_batches, {0: object()})


def test_memory_does_not_grow_with_the_cells(toy_model, toy_saes, toy_cells, batched, monkeypatch):
    """Four times the cells, the same peak: what waits is folded into sums per latent, never kept per cell."""
    monkeypatch.setattr(PairSums.__init__, "__kwdefaults__", {"buffer": 1000, "max_pairs": 1 << 22})
    monkeypatch.setattr(TopCells, "add", limited(TopCells.add, 2000))
    batches = batched(toy_cells, 30)

    def peak(n):
        stream = (batch for _ in range(n) for batch in batches)
        tracemalloc.start()
        catalogue = build_catalogue(toy_model, stream, toy_saes, coactivation=Limits())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert catalogue.meta["n_cells"] == n * len(toy_cells)
        return most

    peak(1)
    assert peak(100) < 1.5 * peak(25)


def limited(add, limit):
    def smaller(self, *arguments):
        self._limit = limit
        add(self, *arguments)

    return smaller


def test_bad_input(toy_model, toy_batches, toy_saes):
    narrow = type(toy_saes[0])(torch.zeros(4, 5))
    with pytest.raises(ScircuitError, match="reads 5 dimensions but toy has 8"):
        build_catalogue(toy_model, toy_batches, {0: narrow})
    with pytest.raises(ScircuitError, match="no layer 9; layers are 0 to 2"):
        build_catalogue(toy_model, toy_batches, {9: toy_saes[0]})
    with pytest.raises(ScircuitError, match="No SAE was given"):
        build_catalogue(toy_model, toy_batches, {})
    with pytest.raises(ScircuitError, match="no cell"):
        build_catalogue(toy_model, [], toy_saes)
    with pytest.raises(ScircuitError, match="'depth' is numeric"):
        build_catalogue(toy_model, toy_batches, toy_saes, obs=pd.DataFrame({"depth": np.arange(30.0)}))
    with pytest.raises(ScircuitError, match="has 3 rows"):
        build_catalogue(toy_model, toy_batches, toy_saes, obs=pd.DataFrame({"kind": list("abc")}))


@given(
    parts=st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=30), max_size=40),
    limit=st.sampled_from([1, 3, 1000]),
)
def test_pair_sums_do_not_depend_on_spilling(parts, limit, tmp_path_factory):
    sums = PairSums(tmp_path_factory.mktemp("spill"), "x", buffer=4, max_pairs=limit)
    expected = defaultdict(lambda: [0, 0])
    for part in parts:
        sums.add(np.array([k for k, _ in part], dtype=np.int64), np.array([v for _, v in part], dtype=float))
        for key, value in part:
            expected[key][0] += 1
            expected[key][1] += value
    got = sums.result()
    assert {k: [n, t] for k, n, t in zip(got.key.tolist(), got.n.tolist(), got.total.tolist(), strict=True)} == dict(
        expected
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=40), st.integers(1, 5))
def test_top_per_group(entries, n):
    group = np.array([g for g, _ in entries], dtype=int)
    score = np.array([s for _, s in entries], dtype=float)
    expected = []
    for g in sorted(set(group.tolist())):
        members = [i for i in range(len(entries)) if group[i] == g]
        expected += sorted(members, key=lambda i: (-score[i], i))[:n]
    assert top_per_group(group, score, n).tolist() == expected


def test_spilled_runs_are_merged(tmp_path):
    rng = np.random.default_rng(0)
    sums = PairSums(tmp_path, "x", buffer=20, max_pairs=10)
    keys, values = rng.integers(0, 500, 3000), rng.random(3000)
    for key, value in zip(np.split(keys, 100), np.split(values, 100), strict=True):
        sums.add(key, value)
    assert 1 <= len(list(tmp_path.iterdir())) <= 8
    got = sums.result()
    np.testing.assert_array_equal(got.n, np.bincount(keys)[got.key])
    np.testing.assert_allclose(got.total, np.bincount(keys, values)[got.key])
    assert got.n.sum() == 3000
