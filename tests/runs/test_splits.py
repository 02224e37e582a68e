"""Splits in a run: which cells each stage sees, what is recorded, what is refused."""

import sys
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scircuit._io import read_json
from scircuit.cells.sampling import split_of
from scircuit.cells.tokens import TokenStore
from scircuit.cli.app import main
from scircuit.config import RunConfig
from scircuit.config_file import load_config, parse_config
from scircuit.errors import ScircuitError
from scircuit.runs.stages import run
from scircuit.runs.tokens import check_cells, identity_of


def test_stages_see_their_own_cells(finished: dict[str, Path]) -> None:
    out = finished["geneformer"] / "out"
    cells = pd.read_parquet(out / "tokens" / "cells.parquet")
    shares = load_config(finished["geneformer"] / "run.toml").cells.shares
    assert (cells["_split"] == split_of(cells["_row"].to_numpy(), 3, shares)).all()
    assert cells["_split"].value_counts().to_dict() == {
        "train": 12, "catalogue": 8, "discovery": 12, "confirmation": 8,
    }  # fmt: skip
    seen = {
        "catalogue": pd.read_parquet(out / "features" / "cells.parquet")["cell"],
        "discovery": pd.read_parquet(out / "trace" / "source_cells.parquet")["cell"],
    }
    assert set(cells["_split"].iloc[seen["catalogue"].unique()]) == {"catalogue"}
    assert seen["discovery"].max() < 12
    store = TokenStore.read(out / "tokens")
    for split, file in (("discovery", "trace/trace.json"), ("confirmation", "confirmation/confirmation.json")):
        rows = np.flatnonzero((cells["_split"] == split).to_numpy())
        assert read_json(out / file)["cells"] == store.subset(rows).fingerprint
    manifest = read_json(out / "saes" / "manifest.json")["metadata"]
    assert (manifest["n_train_cells"], manifest["n_quality_cells"]) == (12, 8)
    assert manifest["data"] == [
        {
            "name": "cells", "weight": 1.0, "n_train_cells": 12, "cells": store.fingerprint, "seed": 3,
            "shares": shares, "source": "cells.h5ad", "fingerprint": manifest["data"][0]["fingerprint"],
            "n_cells": 40,
        }
    ]  # fmt: skip


def stratified(text: str) -> str:
    return text.replace('path = "cells.h5ad"', 'path = "cells.h5ad"\nn = 30\nstratify = ["kind"]\nequal = true')


def test_strata_are_recorded(project, scgpt_folder: Path) -> None:
    out = run(load_config(project(scgpt_folder, edit=stratified) / "run.toml"), until="tokenize").stage("tokens")
    record = read_json(out / "tokens.json")
    cells = pd.read_parquet(out / "cells.parquet")
    assert record["splits"] == cells["_split"].value_counts().to_dict()
    assert cells["kind"].value_counts().to_dict() == {"a": 15, "b": 15}
    assert [row["kind"] for row in record["strata"]] == ["a", "b"]
    assert [sum(row[name] for name in record["splits"]) for row in record["strata"]] == [15, 15]
    assert record["stratify"] == ["kind"]


def test_dictionaries_of_the_same_data_must_keep_its_splits(finished, project, geneformer_folder: Path) -> None:
    """Read by a run of the same seed they are welcome; by one that would trace their training cells they are not."""
    saes = finished["geneformer"] / "out" / "saes"

    def edit(text: str) -> str:
        return text.replace("[sae]", f'[sae]\npath = "{saes}"')

    folder = project(geneformer_folder, edit=edit)
    config = load_config(folder / "run.toml")
    same = run(config, until="train-sae")
    assert read_json(same.stage("saes") / "manifest.json")["metadata"]["data"][0]["name"] == "cells"
    with pytest.raises(ScircuitError, match=r"of the 28 cells outside the train split may have taught .*seed = 3"):
        run(replace(config, seed=4, out=str(folder / "other")), until="train-sae")
    other = project(geneformer_folder, renamed(ad.read_h5ad(folder / "cells.h5ad")), edit)
    run(replace(load_config(other / "run.toml"), seed=4), until="train-sae")


def renamed(cells: ad.AnnData) -> ad.AnnData:
    cells.obs_names = [f"other{i}" for i in range(cells.n_obs)]
    return cells


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"cells": {"shares": {"train": 1.0}}}, "gives nothing to catalogue, where features are described"),
        ({"cells": {"shares": {"catalogue": 0.5, "discovery": 0.5}}}, "gives nothing to train, where dictionaries"),
        (
            {"cells": {"shares": {"train": 0.4, "catalogue": 0.3, "discovery": 0.3}}},
            "gives nothing to confirmation, where edges are confirmed",
        ),
        ({"cells": {"stratify": ["a"], "equal": True}}, "set cells.n"),
        ({"sae": {"path": "x", "mix": [{"name": "a", "path": "b"}]}}, "sae.path and sae.mix exclude each other"),
        ({"sae": {"mix": [{"name": "a"}, {"name": "a"}]}}, "give each data set a name of its own"),
        ({"sae": {"mix": [{"path": "a"}]}}, "name = ''"),
        ({"sae": {"mix": [{"name": "a", "weight": 0}]}}, "the weight of a is 0.0; it must be positive"),
        ({"sae": {"mix": [{"name": "a", "shares": {"discovery": 1}}]}}, "sae.mix a.shares gives nothing to train"),
    ],
)
def test_contradictions_are_met_before_any_cell_is_read(content: dict, says: str) -> None:
    with pytest.raises(ScircuitError, match=says):
        check_cells(parse_config(content))


def test_unused_splits_may_be_empty() -> None:
    shares = {"catalogue": 0.5, "discovery": 0.5}
    check_cells(parse_config({"cells": {"shares": shares}, "sae": {"path": "x"}, "confirmation": {"n_cells": 0}}))
    check_cells(RunConfig())


def test_the_template_may_be_followed_by_data_sets(tmp_path: Path) -> None:
    from scircuit.config_file import template

    file = tmp_path / "run.toml"
    file.write_text(template() + '\n[[sae.mix]]\nname = "a"\nweight = 2\nn_per = {lung = 5}\nstratify = ["tissue"]\n')
    (part,) = load_config(file).sae.mix
    assert (part.name, part.weight, part.n_per, part.stratify) == ("a", 2.0, {"lung": 5}, ("tissue",))
    assert "[[sae.mix]]" in template()


def test_mistakes_in_mixed_sections_are_named() -> None:
    with pytest.raises(ScircuitError, match=r"unknown key 'wheight'; did you mean 'weight'\?"):
        parse_config({"sae": {"mix": [{"name": "a", "wheight": 2}]}})
    with pytest.raises(ScircuitError, match=r"shares.train = 'half' is of the wrong type"):
        parse_config({"cells": {"shares": {"train": "half"}}})


def test_values_that_are_no_counts_are_refused_before_anything_is_written(
    project, cells: ad.AnnData, geneformer_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scaled = cells.copy()
    scaled.X = scaled.X.toarray() - 1.0
    folder = project(geneformer_folder, scaled)
    monkeypatch.setattr("sys.argv", ["scircuit", "-q", "run", str(folder / "run.toml")])
    with pytest.raises(SystemExit):
        main()
    assert "X holds negative values" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_run_takes_its_cells_from_the_census(
    project, cells: ad.AnnData, geneformer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in store of the test's 40 cells, whose join ids start at 5,000."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    obs = cells.obs.reset_index(drop=True).assign(soma_joinid=np.arange(5000, 5040))
    store = {"census_data": {"homo_sapiens": SimpleNamespace(obs=obs)}}
    fake = SimpleNamespace(
        open_soma=lambda census_version: nullcontext(store),
        get_obs=lambda census, organism, value_filter, column_names: obs[column_names],
        get_anndata=lambda census, organism, obs_coords: ad.AnnData(
            cells.X[np.array(obs_coords) - 5000],
            obs.set_index(obs.index.astype(str)).iloc[np.array(obs_coords) - 5000],
            cells.var.copy(),
        ),
    )
    monkeypatch.setitem(sys.modules, "cellxgene_census", fake)
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path))

    def edit(text: str) -> str:
        return text.replace('path = "cells.h5ad"', 'path = "census:2025-01-30"\nn = 30\nstratify = ["kind"]')

    config = load_config(project(geneformer_folder, edit=edit) / "run.toml")
    tokens = TokenStore.read(run(config, until="tokenize").stage("tokens"))
    identity = identity_of(tokens)
    assert len(tokens) == 30
    assert identity.min() >= 5000
    assert (tokens.cells["_split"] == split_of(identity, 3, config.cells.shares)).all()
    assert tokens.info["data"]["source"] == tokens.info["data"]["fingerprint"] == "census:2025-01-30"
    assert tokens.info["data"]["licence"].startswith("CC BY 4.0")
    assert [p.suffix for p in sorted((tmp_path / "census").iterdir())] == [".h5ad", ".json"]
