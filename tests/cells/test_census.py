"""The Census reader against a stand-in of the parts of `cellxgene_census` that it calls."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scircuit._io import read_json
from scircuit.cells import census
from scircuit.cells.census import CensusQuery, census_file, value_filter
from scircuit.cells.sampling import Rule, split_of
from scircuit.errors import ScircuitError

SHARES = {"train": 0.5, "catalogue": 0.2, "discovery": 0.2, "confirmation": 0.1}
QUERY = CensusQuery(
    "2025-01-30",
    {"is_primary_data": True, "tissue_general": ["blood", "lung"]},
    300,
    Rule(("tissue_general", "cell_type")),
    SHARES,
    0,
)


class FakeCensus:
    """A store of 2,000 cells whose join ids start at 5,000; `calls` records what was asked for."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.calls: list[tuple[str, Any]] = []
        self.counts = sparse.random(
            2000, 60, 0.3, format="csr", random_state=1, data_rvs=lambda n: rng.integers(1, 9, n)
        ).astype(np.float32)
        self.obs = pd.DataFrame(
            {
                "soma_joinid": np.arange(5000, 7000),
                "tissue_general": pd.Categorical(rng.choice(["blood", "lung", "kidney"], 2000, p=[0.7, 0.2, 0.1])),
                "cell_type": pd.Categorical(rng.choice(["B cell", "T cell"], 2000)),
                "is_primary_data": rng.random(2000) < 0.8,
                "dataset_id": pd.Categorical(rng.choice(["d1", "d2"], 2000)),
            }
        )
        self.var = pd.DataFrame(
            {
                "soma_joinid": np.arange(60),
                "feature_id": [f"ENSG{i:011d}" for i in range(1, 61)],
                "feature_name": [f"GENE{i}" for i in range(60)],
            },
            index=[str(i) for i in range(60)],
        )

    def module(self) -> SimpleNamespace:
        return SimpleNamespace(open_soma=self.open_soma, get_obs=self.get_obs, get_anndata=self.get_anndata)

    def open_soma(self, *, census_version: str) -> "FakeCensus":
        if census_version != "2025-01-30":
            raise ValueError(f"The '{census_version}' Census version is not valid.")
        self.calls.append(("open", census_version))
        return self

    def __enter__(self) -> "FakeCensus":
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("close", None))

    def __getitem__(self, name: str) -> Any:
        assert name == "census_data"
        return {"homo_sapiens": SimpleNamespace(obs=self.obs.set_index("soma_joinid", drop=False))}

    def get_obs(self, census: Any, organism: str, *, value_filter: str | None, column_names: list[str]) -> pd.DataFrame:
        assert (census, organism) == (self, "homo_sapiens")
        self.calls.append(("obs", tuple(column_names)))
        kept = self.obs if value_filter is None else self.obs.query(value_filter)
        return kept[column_names].reset_index(drop=True)

    def get_anndata(self, census: Any, organism: str, *, obs_coords: list[int]) -> ad.AnnData:
        self.calls.append(("cells", len(obs_coords)))
        rows = np.array(obs_coords) - 5000
        obs = self.obs.iloc[rows].reset_index(drop=True)
        obs = obs.assign(**{c: obs[c].cat.remove_unused_categories() for c in obs if obs[c].dtype == "category"})
        return ad.AnnData(self.counts[rows], obs.set_axis(obs.index.astype(str)), self.var.copy())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCensus:
    store = FakeCensus()
    monkeypatch.setitem(sys.modules, "cellxgene_census", store.module())
    monkeypatch.setattr(census, "_CHUNK", 128)
    return store


def test_cells_are_drawn_by_metadata_and_fetched_in_chunks_once(fake: FakeCensus, tmp_path: Path) -> None:
    path = census_file(QUERY, tmp_path)
    assert fake.calls == [
        ("open", "2025-01-30"),
        ("obs", ("soma_joinid", "is_primary_data", "tissue_general", "cell_type")),
        ("cells", 128), ("cells", 128), ("cells", 44), ("close", None),
    ]  # fmt: skip
    found = ad.read_h5ad(path)
    joinids = found.obs["soma_joinid"].to_numpy()
    assert len(joinids) == 300
    assert (np.diff(joinids) > 0).all()
    assert (fake.counts[joinids - 5000] != found.X).nnz == 0
    assert found.obs["is_primary_data"].all()
    expected = fake.obs.set_index("soma_joinid").loc[joinids]
    for column in ("tissue_general", "cell_type", "dataset_id"):
        assert (found.obs[column].astype(str).to_numpy() == expected[column].astype(str).to_numpy()).all()
    assert set(found.obs["tissue_general"]) == {"blood", "lung"}
    assert found.var_names[0] == "ENSG00000000001"
    assert (found.obs_names == joinids.astype(str)).all()
    split = pd.Series(split_of(joinids, 0, SHARES)).value_counts().to_dict()
    assert split == {"train": 150, "catalogue": 60, "discovery": 60, "confirmation": 30}
    record = read_json(path.with_suffix(".json"))
    assert record["licence"].startswith("CC BY 4.0")
    assert (record["n_cells"], record["source"]) == (300, "census:2025-01-30")
    assert census_file(QUERY, tmp_path) == path
    assert len(fake.calls) == 6
    assert census_file(QUERY._replace(seed=1), tmp_path) != path


def test_the_package_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cellxgene_census", None)
    with pytest.raises(ScircuitError, match=r"not installed: pip install 'scircuit\[census\]'"):
        census_file(QUERY, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": "stable"}, "census:stable names no release; give its date"),
        ({"version": "2011-01-01"}, "has no release 2011-01-01"),
        ({"n": None}, "tens of millions of cells; set cells.n"),
        ({"where": {"organ": "lung"}}, "no obs column 'organ'; it has cell_type"),
        ({"where": {"tissue_general": "liver"}}, "No cell of the Census meets cells.where"),
        ({"where": {"tissue_general": ["lung", "liver"]}}, "No cell has tissue_general = 'liver'"),
        ({"where": {"is_primary_data": [True, {}]}}, "cannot be filtered by .*check cells.where"),
        ({"rule": Rule(("organ",))}, "no obs column 'organ'"),
    ],
)
def test_refusals_leave_nothing_behind(fake: FakeCensus, tmp_path: Path, change: dict, says: str) -> None:
    with pytest.raises(ScircuitError, match=says):
        census_file(QUERY._replace(**change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_fetch_that_breaks_off_is_not_taken_for_whole(
    fake: FakeCensus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fake.get_anndata
    module = sys.modules["cellxgene_census"]

    def broken(census: Any, organism: str, *, obs_coords: list[int]) -> ad.AnnData:
        return whole(census, organism, obs_coords=obs_coords[:-1])

    monkeypatch.setattr(module, "get_anndata", broken)
    with pytest.raises(ScircuitError, match="gave 127 of 128 cells"):
        census_file(QUERY, tmp_path)
    assert not list(tmp_path.iterdir())


def test_filters_are_in_soma_syntax() -> None:
    assert value_filter({}) is None
    assert value_filter({"a": "it's", "b": [True, False], "c": 3}) == (
        'a in ["it\'s"] and (b == True or b == False) and (c == 3)'
    )
