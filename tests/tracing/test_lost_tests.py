"""No test is lost to a screen: p is that of the responses, by both engines, and what it says is kept."""

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import skew

from scircuit._io import read_json
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.schema import ENDS
from scircuit.models.base import FoundationModel
from scircuit.models.geneformer import load_geneformer
from scircuit.models.stream import gene_rows
from scircuit.sae.base import LinearSAE
from scircuit.sae.settings import SaeTraining
from scircuit.sae.training import train_saes
from scircuit.stats.signflip import exact_p
from scircuit.tracing import setup as setups
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.moments import Moments
from scircuit.tracing.parts import CellEffects
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tables import Weights, effect_table
from scircuit.tracing.tracer import trace

LOCAL = {"context_rows": 0.0, "check_sources": 40, "check_cells": 24, "min_r": 0.0, "min_sign": 0.0, "confirm": "none"}
SETTINGS = {"n_random": 0, "tokens": 4000, "rule": EdgeRule(min_nonzero=4)}


Traced = tuple[FoundationModel, dict[int, LinearSAE], TokenStore, dict[int, list[int]]]


@pytest.fixture(scope="module")
def traced_setup(geneformer_folder: Path, cells: ad.AnnData) -> Traced:
    """A tiny model, dictionaries, cells, and latents of its first layer that fire."""
    model = load_geneformer(geneformer_folder, device="cpu")
    store = tokenize(cells, model.tokenizer, rows=np.arange(24))

    def stream(epoch: int) -> Iterator[torch.Tensor]:
        return (rows for rows, _, _ in gene_rows(model, store.batches(8), range(3)))

    config = SaeTraining(k=6, n_steps=60, batch_rows=64, buffer_rows=2000, expansion=2)
    saes = train_saes(stream, model.d_model, range(3), config)
    rows = next(gene_rows(model, store.batches(8), [0]))[0][0]
    return model, saes, store, {0: saes[0].encode(rows).indices.unique().tolist()}


def test_one_large_response_beside_small_ones_is_kept() -> None:
    values = np.r_[1.0, np.full(10, 1e-3)]
    moments = Moments.zeros(1, 1, torch.device("cpu"))
    for value in values:
        moments.add(np.array([0]), torch.tensor([[value]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    zeros = np.zeros(len(values), np.int32)
    table, tests = effect_table(
        0, 1, (Intervention((0,)),), moments, CellEffects(zeros, zeros, np.arange(len(values)), values),
        retention=0.05, seed=0, weights=Weights(np.zeros((1, 1)), np.ones(1), np.zeros((1, 1))),
    )  # fmt: skip
    assert table["p_value"].tolist() == exact_p(values[None]).tolist() == [2 / 2**11]
    assert tests["n_retained"].tolist() == [1]


@pytest.mark.parametrize("engine", ["exact", "local"])
def test_p_is_that_of_the_stored_responses(engine: str, traced_setup: Traced, tmp_path: Path) -> None:
    model, saes, store, sources = traced_setup
    options = LOCAL if engine == "local" else {}
    folder = trace(model, saes, store, sources, tmp_path, settings=TraceSettings(engine=engine, **options, **SETTINGS))
    assert read_json(folder / "trace.json")["p_value"] == "sign-flip"
    effects, cells = (pd.read_parquet(folder / f"{name}.parquet") for name in ("effects", "cell_effects"))
    wide = cells.pivot_table(index=ENDS, columns="cell", values="delta", fill_value=0.0)
    few = effects[(effects["n_nonzero"] <= 20) & (effects["n_nonzero"] > 1)].set_index(ENDS)
    assert len(few) > 10
    values = wide.loc[few.index].to_numpy()
    np.testing.assert_allclose(few["p_value"], exact_p(values), rtol=1e-6)
    expected = [skew(row[row != 0]) if np.ptp(row[row != 0]) else 0.0 for row in values]
    np.testing.assert_allclose(few["skewness"], expected, atol=1e-4)
    tests = pd.read_parquet(folder / "tests.parquet")
    assert tests["n_retained"].sum() == len(effects)
    assert (effects["p_value"] <= 0.05).all()


def test_where_responses_would_fill_the_disk_what_the_t_form_hides_is_measured_again(
    traced_setup: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, saes, store, sources = traced_setup
    settings = TraceSettings(engine="local", **LOCAL | {"confirm": "borderline"}, **SETTINGS)
    whole = trace(model, saes, store, sources, tmp_path / "whole", settings=settings)
    monkeypatch.setattr(setups, "RESPONSE_BYTES", 0)
    bare = trace(model, saes, store, sources, tmp_path / "bare", settings=settings)
    assert read_json(bare / "trace.json")["p_value"] == "t form of the sign-flip"
    assert pd.read_parquet(bare / "effects.parquet")["skewness"].isna().any()
    kept, found = (pd.read_parquet(folder / "effects.parquet") for folder in (whole, bare))
    rule, n = settings.rule, int(pd.read_parquet(whole / "tests.parquet")["n_tests"].sum())
    edges = set(kept.loc[rule.passes(kept, n), ENDS].itertuples(index=False, name=None))
    again = set(found.loc[rule.passes(found, n), ENDS].itertuples(index=False, name=None))
    assert edges
    assert edges <= again
