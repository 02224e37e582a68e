"""Memory: budgets are kept, batches halve when memory runs out, and the result stays."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from agreement import assert_same_effects
from dictionaries import random_saes
from hypothesis import given
from hypothesis import strategies as st

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.tracing import tracer, units
from scircuit.tracing.memory import BatchSize, fit, is_out_of_memory, parse_memory, plan_memory
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup

ENDS = ["source_layer", "source_feature", "target_layer", "target_feature", "kind", "draw"]
SETTINGS = TraceSettings(engine="exact", cells_per_block=4, tokens=300, retention=1.0, n_random=1)


@pytest.fixture(scope="module")
def inputs(geneformer_folder, cells):
    model = load_geneformer(geneformer_folder, device="cpu")
    store = tokenize(cells, model.tokenizer, rows=np.arange(8))
    saes = random_saes(48)
    return model, saes, store, {0: [1, 2, 3, 4], 2: [5, 6]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GB", 8e9), ("8 gb", 8e9), ("512MiB", 512 * 2**20), ("1.5e9", 1.5e9), ("0.5TB", 5e11), ("100", 100)],
)
def test_amounts_of_memory(text, expected):
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "much", "8 QB", "-3GB", "0", "1.2.3GB", "GB"])
def test_other_texts_are_refused(text):
    with pytest.raises(ScircuitError, match="is no amount of memory"):
        parse_memory(text)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_signs_of_no_memory(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("The size of tensor a (3) must match"))


def test_a_real_refusal_of_the_allocator_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def short_of_memory(monkeypatch, limit):
    """From now on responses of more than `limit` tokens at once fail as on a full device, half-way."""
    original, seen = units.respond, []

    def respond(setup, *args):
        seen.append(setup.settings.tokens)
        for answer in original(setup, *args):
            yield answer
            if setup.settings.tokens > limit:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(units, "respond", respond)
    return seen


def test_a_trace_short_of_memory_halves_its_batches_and_finds_the_same(inputs, tmp_path, monkeypatch, caplog):
    model, saes, store, sources = inputs
    plenty = tracer.trace(model, saes, store, sources, tmp_path / "plenty", settings=SETTINGS)
    seen = short_of_memory(monkeypatch, 80)
    short = tracer.trace(model, saes, store, sources, tmp_path / "short", settings=SETTINGS)
    assert seen[:3] == [300, 150, 75], "halved until it fits"
    assert set(seen[2:]) == {75}, "and small from then on"
    assert "out of memory" in caplog.text
    a, b = (pd.read_parquet(f / "effects.parquet") for f in (plenty, short))
    assert_same_effects(a, b, ENDS)
    counts = [json.loads((f / "trace.json").read_text()) for f in (plenty, short)]
    for name in ("n_clean_forwards", "n_ablated_forwards"):
        assert counts[0][name] == counts[1][name] > 0, "work done twice counts once"
    assert counts[0]["n_tests"] == pytest.approx(counts[1]["n_tests"], rel=0.01)


def test_no_memory_for_anything_is_said_and_other_errors_pass(inputs, tmp_path, monkeypatch):
    model, saes, store, sources = inputs
    short_of_memory(monkeypatch, 0)
    with pytest.raises(ScircuitError, match="even one sequence at a time"):
        tracer.trace(model, saes, store, sources, tmp_path / "t", settings=SETTINGS)

    def broken(setup):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        BatchSize(100, 100).halving(Setup(model, saes, store), broken)


@given(megabytes=st.floats(150, 20_000), engine=st.sampled_from(["exact", "local"]))
def test_a_budget_is_kept_and_used(inputs, megabytes, engine):
    model, saes, store, _ = inputs
    settings = replace(SETTINGS, engine=engine, memory=f"{megabytes}MB", n_random=2)
    setup = fit(Setup.of(model, saes, store, {0: range(48), 1: range(48)}, settings))
    budget, fitted = parse_memory(settings.memory), setup.settings
    assert plan_memory(setup).peak <= budget
    larger = {"tokens": 2 * fitted.tokens} if engine == "exact" else {"score_bytes": 2 * fitted.score_bytes}
    assert plan_memory(setup.with_settings(**larger)).peak > budget or fitted.tokens >= store.lengths.max() << 20


def test_too_small_a_budget_says_what_is_needed(inputs, tmp_path):
    model, saes, store, sources = inputs
    with pytest.raises(ScircuitError, match=r"too little: weights, sums of one source and one sequence of \d+ take"):
        tracer.trace(model, saes, store, sources, tmp_path / "t", settings=replace(SETTINGS, memory="1MB"))
    assert not (tmp_path / "t").exists()


def test_a_finished_trace_does_not_ask_which_memory_it_had(inputs, tmp_path):
    model, saes, store, sources = inputs
    first = tracer.trace(model, saes, store, sources, tmp_path / "t", settings=replace(SETTINGS, memory="1GB"))
    stamp = (first / "effects.parquet").stat().st_mtime_ns
    for other in (SETTINGS, replace(SETTINGS, memory="2GB"), replace(SETTINGS, tokens=50)):
        tracer.trace(model, saes, store, sources, tmp_path / "t", settings=other)
    assert (first / "effects.parquet").stat().st_mtime_ns == stamp
