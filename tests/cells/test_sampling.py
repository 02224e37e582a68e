"""Filters, splits and stratified draws: disjoint, seeded, exact where numbers were given."""

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scircuit.cells.files import open_cells
from scircuit.cells.sampling import (
    SPLITS,
    Rule,
    allot,
    check_shares,
    draw_sample,
    draw_stratified,
    matching,
    require_values,
    split_of,
    strata_counts,
)
from scircuit.errors import ScircuitError

SHARES = {"train": 0.5, "catalogue": 0.2, "discovery": 0.2, "confirmation": 0.1}


@pytest.fixture(scope="module")
def obs() -> pd.DataFrame:
    """3,000 cells of three tissues of unequal size, with cell types from common to single."""
    rng = np.random.default_rng(0)
    tissue = rng.choice(["immune", "kidney", "lung"], 3000, p=[0.6, 0.3, 0.1])
    kind = rng.choice([f"type{i}" for i in range(12)], 3000, p=np.r_[0.5, 0.3, np.full(10, 0.02)])
    kind[7] = "alone"
    table = pd.DataFrame({"tissue": pd.Categorical(tissue), "cell_type": kind, "guide": "NT"})
    table["primary"] = rng.random(3000) < 0.8
    table["age"] = rng.integers(20, 24, 3000).astype(float)
    table["line"] = pd.Categorical(rng.choice(["k562", "rpe1"], 3000))
    return table


def sample(obs: pd.DataFrame, seed: int = 0, **options):
    settings = {"where": {}, "n": 600, "rule": Rule(), "shares": SHARES, "identity": np.arange(len(obs))} | options
    return draw_sample(obs, settings.pop("identity"), seed=seed, **settings)


def test_where_takes_any_type_and_several_columns(obs: pd.DataFrame) -> None:
    rows = matching(obs, {"line": "k562", "tissue": ["lung", "kidney"], "primary": True, "age": [20, 22.0]})
    expected = (
        (obs["line"] == "k562") & obs["tissue"].isin(["lung", "kidney"]) & obs["primary"] & obs["age"].isin([20, 22])
    )
    assert np.array_equal(rows, np.flatnonzero(expected))
    assert 0 < len(rows) < 1000
    with pytest.raises(ScircuitError, match=r"No cell has line = 'K562'; its values are '(k562|rpe1)'"):
        matching(obs, {"line": "K562"})
    with pytest.raises(ScircuitError, match="No cell has tissue = 'lnug'"):
        matching(obs, {"tissue": ["lung", "lnug"]})
    with pytest.raises(ScircuitError, match=r"No cell has primary = 1; its values are (True|False)"):
        matching(obs, {"primary": 1})
    with pytest.raises(ScircuitError, match="names 'donor'; obs has tissue"):
        matching(obs, {"donor": "a"})
    with pytest.raises(ScircuitError, match="is of the wrong kind; give a value or a list"):
        matching(obs, {"line": {"is": "k562"}})
    with pytest.raises(ScircuitError, match="No cell meets all conditions"):
        matching(obs, {"cell_type": "alone", "age": 20 if obs["age"][7] != 20 else 21})


@given(st.integers(0, 2**62), st.lists(st.integers(0, 10**9), min_size=1, max_size=60, unique=True))
def test_a_cells_split_depends_on_seed_and_row_alone(seed: int, rows: list[int]) -> None:
    whole = dict(zip(rows, split_of(np.array(rows), seed, SHARES), strict=True))
    for row in rows[:5]:
        assert split_of(np.array([row]), seed, SHARES)[0] == whole[row]
    assert set(whole.values()) <= set(SPLITS)


@given(st.integers(0, 10**6), st.integers(0, 50))
def test_shares_are_met_along_the_file(seed: int, block: int) -> None:
    rows = np.arange(20 * block, 20 * block + 20)
    counts = pd.Series(split_of(rows, seed, SHARES)).value_counts().to_dict()
    assert counts == {"train": 10, "catalogue": 4, "discovery": 4, "confirmation": 2}


def test_odd_shares_are_met_on_average_and_seeds_differ() -> None:
    shares = {"train": 0.333, "catalogue": 0.017, "discovery": 0.6, "confirmation": 0.05}
    rows = np.arange(200_000)
    first, second = (split_of(rows, seed, shares) for seed in (1, 2))
    for name, share in shares.items():
        assert (first == name).mean() == pytest.approx(share, abs=0.003)
    agree = (first == second).mean()
    assert agree == pytest.approx(sum(s**2 for s in shares.values()), abs=0.01)  # independent
    assert (first[1:] == first[:-1]).mean() == pytest.approx(sum(s**2 for s in shares.values()), abs=0.05)


def test_two_runs_on_one_data_set_never_mix_their_splits(obs: pd.DataFrame) -> None:
    one = sample(obs, n=900, rule=Rule(("tissue", "cell_type")))
    two = sample(obs, n=None, where={"tissue": "immune"})
    taught = set(one.rows[one.split == "train"])
    assert not taught & set(two.rows[two.split != "train"])
    assert taught & set(two.rows[two.split == "train"])


def test_every_split_is_drawn_by_its_share_and_stratified(obs: pd.DataFrame) -> None:
    found = sample(obs, rule=Rule(("tissue", "cell_type")))
    assert len(found.rows) == 600
    assert pd.Series(found.split).value_counts().to_dict() == {
        "train": 300, "catalogue": 120, "discovery": 120, "confirmation": 60,
    }  # fmt: skip
    assert np.array_equal(found.split, split_of(found.rows, 0, SHARES))
    drawn = obs.iloc[found.rows]
    for name in SPLITS:
        part = drawn[found.split == name]
        pool = obs[split_of(np.arange(3000), 0, SHARES) == name]
        strata = pool.groupby(["tissue", "cell_type"], observed=True).size()
        got = part.groupby(["tissue", "cell_type"], observed=True).size().reindex(strata.index, fill_value=0)
        assert (got >= 1).all()
        ideal = len(part) * strata / strata.sum()
        big = ideal > 5
        assert (got[big] - ideal[big]).abs().max() < 4
    assert found.rows.tolist() == sample(obs, rule=Rule(("tissue", "cell_type"))).rows.tolist()
    assert found.rows.tolist() != sample(obs, seed=1, rule=Rule(("tissue", "cell_type"))).rows.tolist()
    counts = strata_counts(drawn, found.split, ("tissue",))
    assert [row["tissue"] for row in counts] == ["immune", "kidney", "lung"]
    assert sum(row["train"] for row in counts) == 300


def test_equal_shares_are_67_67_66(obs: pd.DataFrame) -> None:
    rule = Rule(("tissue", "cell_type"), equal=True)
    rows = draw_stratified(obs, 200, rule, [42])
    assert sorted(obs.iloc[rows]["tissue"].value_counts()) == [66, 67, 67]
    whole = sample(obs, n=600, rule=rule)
    assert obs.iloc[whole.rows]["tissue"].value_counts().to_dict() == {"immune": 200, "kidney": 200, "lung": 200}
    discovery = obs.iloc[whole.rows[whole.split == "discovery"]]["tissue"].value_counts()
    assert discovery.to_dict() == {"immune": 40, "kidney": 40, "lung": 40}


def test_numbers_per_value_are_exact_or_refused(obs: pd.DataFrame) -> None:
    rule = Rule(("tissue",), n_per={"immune": 67, "kidney": 67, "lung": 66})
    found = sample(obs, n=None, rule=rule)
    assert obs.iloc[found.rows]["tissue"].value_counts().to_dict() == {"immune": 67, "kidney": 67, "lung": 66}
    with pytest.raises(ScircuitError, match="asks for 2000 cells of tissue = 'lung'; there are"):
        sample(obs, n=None, rule=Rule(("tissue",), n_per={"lung": 2000}))
    with pytest.raises(ScircuitError, match="n_per names 'liver'; tissue is immune, kidney, lung"):
        sample(obs, n=None, rule=Rule(("tissue",), n_per={"liver": 5}))


@pytest.mark.parametrize(
    ("rule", "n", "says"),
    [
        (Rule(equal=True), 10, "first column of cells.stratify; name one"),
        (Rule(("tissue",), True), None, "set cells.n"),
        (Rule(("tissue",), True, {"lung": 1}), 1, "exclude each other"),
        (Rule(("tissue",), n_per={"lung": 0}), None, "give at least 1"),
        (Rule(("tissue",), n_per={"lung": 5}), 9, "n = 9 but n_per sums to 5"),
        (Rule(("organ",)), 9, "cells.stratify names 'organ'; obs has tissue"),
    ],
)
def test_contradictory_rules_are_refused(obs: pd.DataFrame, rule: Rule, n: int | None, says: str) -> None:
    with pytest.raises(ScircuitError, match=says):
        sample(obs, n=n, rule=rule)


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"train": 0.5, "trace": 0.5}, "names 'trace'; splits are train, catalogue, discovery, confirmation"),
        ({"train": 0.5, "discovery": 0.4}, "sum to 0.9"),
        ({"train": 1.5, "discovery": -0.5}, "is no share"),
        ({"train": True}, "is no share"),
    ],
)
def test_wrong_shares_are_refused(shares: dict, says: str) -> None:
    with pytest.raises(ScircuitError, match=says):
        check_shares(shares)


def test_an_empty_split_is_refused(obs: pd.DataFrame) -> None:
    with pytest.raises(ScircuitError, match=r"is in the .* split; take more cells or raise its share"):
        sample(obs.iloc[:3], n=None, identity=np.arange(3))


def test_more_strata_than_cells_is_said(obs: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    rows = draw_stratified(obs, 5, Rule(("tissue", "cell_type")), [0])
    assert len(rows) == 5
    assert "cannot hold one of each" in caplog.text


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 50)), min_size=1, max_size=30),
    st.integers(0, 500),
    st.integers(0, 1),
)
def test_allotment_spends_everything_within_bounds(strata: list[tuple[int, int]], n: int, minimum: int) -> None:
    sizes, weights = (np.array(x) for x in zip(*strata, strict=True))
    out = allot(n, weights, sizes, minimum=minimum)
    usable = np.where(weights > 0, sizes, 0)
    assert out.sum() == min(n, usable.sum())
    assert (out >= 0).all()
    assert (out <= usable).all()
    if minimum and n >= (usable > 0).sum():
        assert (out[usable > 0] >= 1).all()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 300))
def test_allotment_without_bounds_is_by_largest_remainder(weights: list[int], n: int) -> None:
    w = np.array(weights, dtype=float)
    out = allot(n, w, np.full(len(w), n), minimum=0)
    ideal = n * w / w.sum()
    assert (np.abs(out - ideal) < 1 + 1e-9).all()
    up, down = ideal - np.floor(ideal), out - np.floor(ideal + 1e-9)
    raised, left = up[down > 0.5], up[down < 0.5]
    assert not len(raised) or not len(left) or raised.min() >= left.max() - 1e-6 or up.max() > 1 - 1e-6


@given(st.integers(0, 10**6), st.integers(10, 19))
def test_small_data_are_split_in_proportion(seed: int, n: int) -> None:
    obs = pd.DataFrame(index=[f"c{i}" for i in range(n)])
    sample = draw_sample(obs, np.arange(n), where={}, n=None, rule=Rule(), shares=SHARES, seed=seed)
    for name, share in SHARES.items():
        assert abs((sample.split == name).sum() - share * n) < 1
    again = draw_sample(obs, np.arange(n), where={}, n=n - 1, rule=Rule(), shares=SHARES, seed=seed)
    assert (again.split == sample.split[again.rows]).all()


def test_too_few_cells_say_how_many_are_needed() -> None:
    obs = pd.DataFrame(index=["a", "b", "c"])
    with pytest.raises(
        ScircuitError, match=r"None of 3 cells is in the .* split; .* \(a share of 0.[12] takes \d+ cells\)"
    ):
        draw_sample(obs, np.arange(3), where={}, n=None, rule=Rule(), shares=SHARES, seed=0)
    with pytest.raises(ScircuitError, match="The file holds no cells"):
        draw_sample(obs[:0], np.arange(0), where={}, n=None, rule=Rule(), shares=SHARES, seed=0)


def test_more_cells_than_there_are_is_said(obs: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    sample = draw_sample(obs, np.arange(3000), where={}, n=5000, rule=Rule(), shares=SHARES, seed=0)
    assert len(sample.rows) == 3000
    assert "cells.n asks for 5000 cells, there are 3000: all of them are taken" in caplog.text


def test_columns_with_blanks_slashes_and_missing_values(tmp_path: Path) -> None:
    n = 200
    obs = pd.DataFrame(index=[f"c {i}/x" for i in range(n)])
    obs["cell type / level 1"] = pd.Categorical([("T/NK cell", "B cell ", None)[i % 3] for i in range(n)])
    obs["donor id"] = [f"d {i % 4}" if i % 5 else np.nan for i in range(n)]
    data = ad.AnnData(np.ones((n, 2), np.float32), obs=obs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # AnnData dislikes the slash, and writes it
        data.write_h5ad(tmp_path / "c.h5ad")
    columns = ("cell type / level 1", "donor id")
    read = open_cells(tmp_path / "c.h5ad").obs
    assert (matching(read, {columns[0]: "T/NK cell"}) == np.arange(0, n, 3)).all()
    assert (matching(read, {columns[0]: ["B cell ", "T/NK cell"]}) % 3 != 2).all()
    sample = draw_sample(read, np.arange(n), where={}, n=60, rule=Rule(columns), shares=SHARES, seed=0)
    strata = strata_counts(read.iloc[sample.rows], sample.split, columns)
    assert len(strata) == 15  # 3 kinds, 5 donors, the missing ones among them
    with pytest.raises(ScircuitError, match=r"names 'donor id', which has no value in 40 of 200 cells; fill it in"):
        require_values(read, ["donor id"], "trace.units")
