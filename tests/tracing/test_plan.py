"""The plan against the trace that follows it."""

import json
import time
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from dictionaries import random_saes
from planted import planted_cells, planted_model

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.sae.latents import Latents
from scircuit.sae.topk import TopKSAE
from scircuit.tracing.plan import Pace, expect_trace, plan_trace
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace

SETTINGS = TraceSettings(
    engine="exact", cells_per_block=4, sources_per_block=24, tokens=300, n_random=2, confirm="none",
    accept_approximation=True, check_cells=24, check_sources=24,
)  # fmt: skip
SOURCES = {0: range(24), 2: [1, 5, 7]}
RATE = 0.05


@pytest.fixture(scope="module")
def inputs(geneformer_folder, cells):
    model = load_geneformer(geneformer_folder, device="cpu")
    saes = random_saes(32, k=5)
    return model, saes, tokenize(cells, model.tokenizer, rows=np.arange(24))


@pytest.mark.parametrize(("engine", "groups"), [("exact", ("kind",)), ("local", ())])
def test_the_forwards_are_those_that_are_run(inputs, tmp_path, engine, groups):
    model, saes, store = inputs
    store, sources = store.subset(np.arange(10)), {0: range(8), 2: [1, 5]}
    options = replace(SETTINGS, engine=engine, groups=groups, check_cells=8, check_sources=6)
    plan = plan_trace(Setup.of(model, saes, store, sources, options))
    started = time.perf_counter()
    out = trace(model, saes, store, sources, tmp_path / "t", settings=options)
    seconds = time.perf_counter() - started
    found = json.loads((out / "trace.json").read_text())
    assert plan.table["n_ablated"].sum() == found["n_ablated_forwards"] > 100
    assert plan.table["n_clean"].sum() == found["n_clean_forwards"] > 10
    assert plan.engine == engine
    assert plan.n_counted == plan.n_cells == 10
    assert 0 < plan.table["seconds"].sum() < 100 * seconds
    assert (plan.table["madds"] > 0).all()


class FiresAtRandom(TopKSAE):
    """Every latent fires at the same rate, whatever it reads."""

    def _activate(self, pre: torch.Tensor) -> Latents:
        fires = torch.rand(pre.shape, generator=torch.Generator().manual_seed(len(pre))) < RATE
        return Latents(fires.float(), torch.arange(pre.shape[1]).expand(len(pre), -1))


@pytest.mark.parametrize(("engine", "memory"), [("exact", None), ("exact", "200MB"), ("local", None), ("auto", None)])
def test_a_shape_alone_has_the_engine_the_memory_and_near_the_cost(inputs, engine, memory):
    model, _, store = inputs
    saes = {layer: FiresAtRandom(sae.config, *sae.parameters()) for layer, sae in random_saes(32, k=32).items()}
    options = replace(SETTINGS, engine=engine, memory=memory)
    known = plan_trace(Setup.of(model, saes, store, SOURCES, options))
    shape = deepcopy(model).to("meta")
    setup = Setup.of(shape, saes, store, SOURCES, options)
    expected = expect_trace(setup, len(store), RATE, Pace(1e-9, 1e-6, 0.2))
    assert (expected.engine, expected.settings, expected.memory) == (known.engine, known.settings, known.memory)
    assert expected.n_counted == 0
    assert "expected from a firing rate" in "\n".join(expected.lines())
    for column in ("layer", "n_sources", "n_targets", "n_clean"):
        assert expected.table[column].tolist() == known.table[column].tolist()
    for column in ("n_ablated", "madds"):
        assert expected.table[column].tolist() == pytest.approx(known.table[column].tolist(), rel=0.1)
    n_tests = 72 * 3 * 32 + 9 * 32
    work = expected.table["madds"].sum()
    assert expected.table["seconds"].sum() == pytest.approx(1e-9 * work + 1e-6 * n_tests)


def test_fewer_counted_cells_give_an_estimate_near_it(inputs):
    model, saes, store = inputs
    whole = plan_trace(Setup.of(model, saes, store, SOURCES, SETTINGS)).table["n_ablated"].sum()
    part = plan_trace(Setup.of(model, saes, store, SOURCES, SETTINGS), max_cells=12)
    assert part.n_counted == 12
    assert part.table["n_ablated"].sum() == pytest.approx(whole, rel=0.2)
    assert "scaled up from 12 cells" in "\n".join(part.lines())


def test_what_is_printed(inputs):
    model, saes, store = inputs
    lines = plan_trace(Setup.of(model, saes, store, SOURCES, SETTINGS)).lines()
    assert lines[0].split() == ["layer", "sources", "targets", "clean", "ablated", "TFLOP", "time"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "2", "total"]
    text = "\n".join(lines)
    for part in (
        "exact engine on cpu, 24 cells",
        "counted in every cell",
        "peak memory",
        "disk while it runs",
        "faithfulness`: 34,900",
    ):
        assert part in text
    local = plan_trace(Setup.of(model, saes, store, SOURCES, replace(SETTINGS, engine="local"))).lines()
    assert "fidelity check (24 sources per layer in 24 cells" in local[-2]
    assert "counted without context rows" in local[-1]


def test_a_model_that_shows_no_blocks_has_forwards_and_time(tmp_path):
    model, saes = planted_model()
    store = planted_cells(model, 10)
    options = TraceSettings(cells_per_block=3, retention=1.0)
    plan = plan_trace(Setup.of(model, saes, store, {0: [0, 1], 1: [2]}, options))
    found = json.loads(
        (trace(model, saes, store, {0: [0, 1], 1: [2]}, tmp_path / "t", settings=options) / "trace.json").read_text()
    )
    assert plan.table["n_ablated"].sum() == found["n_ablated_forwards"]
    assert plan.table["madds"].isna().all()
    assert (plan.table["seconds"] > 0).all()
    assert plan.lines()


def test_the_plan_keeps_to_the_memory_budget(inputs):
    model, saes, store = inputs
    plan = plan_trace(Setup.of(model, saes, store, SOURCES, replace(SETTINGS, memory="200MB")))
    assert plan.memory.peak <= 200e6
    with pytest.raises(ScircuitError, match="too little"):
        plan_trace(Setup.of(model, saes, store, SOURCES, replace(SETTINGS, memory="1MB")))
