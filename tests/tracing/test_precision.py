"""Reduced precision is never silent: its agreement with float32 is measured and written."""

import json

import numpy as np
import pytest
import torch
from dictionaries import random_saes

from scircuit.cells.tokens import tokenize
from scircuit.models.geneformer import load_geneformer
from scircuit.tracing.precision import is_reduced, precision_report
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace

SETTINGS = TraceSettings(engine="exact", check_cells=20, check_sources=12, tokens=2000, n_random=0)
SOURCES = {0: range(12), 1: range(12)}


@pytest.fixture(scope="module")
def inputs(geneformer_folder, cells):
    saes = random_saes(32)
    models = {dtype: load_geneformer(geneformer_folder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")}
    return models, saes, tokenize(cells, models["float32"].tokenizer, rows=np.arange(20))


def test_a_bfloat16_trace_says_how_far_it_is_from_float32(inputs, tmp_path):
    models, saes, store = inputs
    out = trace(models["bfloat16"], saes, store, SOURCES, tmp_path / "t", settings=SETTINGS)
    report = json.loads((out / "trace.json").read_text())["precision_report"]
    assert (report["dtype"], report["tf32"], report["n_cells"], report["n_sources"]) == ("bfloat16", False, 20, 24)
    assert [row["distance"] for row in report["table"]] == [1, 2, 3]
    for row in report["table"]:
        assert row["n_tests"] > 20
        assert 0.5 < row["r"] < 0.99999, "close to float32 but not it"
        assert row["rmse"] > 0
    assert models["bfloat16"].dtype == torch.bfloat16, "the model itself stays as it was"


def test_float32_carries_no_report(inputs, tmp_path):
    models, saes, store = inputs
    assert not is_reduced(models["float32"])
    out = trace(models["float32"], saes, store, {0: [1, 2]}, tmp_path / "t", settings=SETTINGS)
    assert "precision_report" not in json.loads((out / "trace.json").read_text())


def test_float32_agrees_with_itself_exactly(inputs):
    models, saes, store = inputs
    report = precision_report(Setup.of(models["float32"], saes, store, SOURCES, SETTINGS))
    for row in report["table"]:
        assert (row["r"], row["sign"], row["rmse"]) == (pytest.approx(1.0), 1.0, 0.0)


def test_a_coarser_number_agrees_less(inputs, geneformer_folder):
    models, _, store = inputs
    saes = random_saes(32, k=32)  # all latents: no rank that rounding could change by chance
    half = load_geneformer(geneformer_folder, device="cpu", dtype="float16")
    tables = [
        precision_report(Setup.of(m, saes, store, SOURCES, SETTINGS))["table"] for m in (half, models["bfloat16"])
    ]
    for fine, coarse in zip(*tables, strict=True):
        # r is over more tests in float16, whose floor is lower: far away the added small ones may outweigh the bits.
        assert fine["n_tests"] > coarse["n_tests"]
        assert fine["recall"] > coarse["recall"], "float16 has 3 bits more of mantissa than bfloat16"
        if fine["distance"] < 3:
            assert fine["r"] > coarse["r"]
