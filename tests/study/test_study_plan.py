"""A study's plan beside the trace that it is the plan of."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scircuit.cells.tokens import tokenize
from scircuit.config import RunConfig
from scircuit.runs.inputs import open_model
from scircuit.study import plan as planning
from scircuit.study.config import StudyConfig, load_study
from scircuit.study.plan import BASE, StudyPlan, plan_study
from scircuit.study.shapes import random_saes
from scircuit.tracing.menu import build, parse_words
from scircuit.tracing.plan import Plan, plan_trace
from scircuit.tracing.setup import Setup

Study = Callable[..., Path]
N_LATENTS = 64
JOBS = {
    "few": ("exact", {"n": 3}),
    "half": ("local", {"n": 32}),
    "most": ("local", {"n": 40, "interventions": ("scale:2", "resample", "mean")}),
    "every": ("local", {"rule": "all"}),
    "every-exactly": ("exact", {"rule": "all", "engine": "exact", "memory": "300MB"}),
    "every-in-little": ("local", {"rule": "all", "memory": "200MB"}),
    "few-in-little": ("exact", {"n": 3, "memory": "200MB", "groups": ("kind",)}),
    "few-locally": ("local", {"n": 3, "engine": "local", "context_rows": 1.0, "decoy": "covariance"}),
}


def job(run: RunConfig, rule: str = "random", n: int = 3, **trace: object) -> RunConfig:
    """The run with other sources and other settings of its trace."""
    trace = {"n_cells": None, "groups": (), **trace}
    return replace(run, sources=replace(run.sources, rule=rule, n=n), trace=replace(run.trace, **trace))


@pytest.fixture(scope="module")
def study(study_folder: Study) -> StudyConfig:
    """Both models, each traced in every way."""
    study = load_study(study_folder() / "study.toml")
    conditions = [
        replace(c, name=f"{c.name}-{name}", run=job(c.run, **changes))
        for c in study.conditions
        for name, (_, changes) in JOBS.items()
        if c.name in ("all", "gpt")
    ]
    return replace(study, conditions=tuple(conditions))


@pytest.fixture(scope="module")
def planned(study: StudyConfig) -> StudyPlan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_LOOKED_AT", 10_000)  # the longest cell decides the memory: both look at all of them
        patch.setattr(planning, "asking", lambda *_: {})
        return plan_study(study)


def tracer_plans(study: StudyConfig, model: str) -> Iterator[tuple[str, Plan]]:
    """What `scircuit plan` says of the same jobs, of the models, cells and dictionaries themselves."""
    runs = {c.name: c.run for c in study.conditions}
    run = runs[f"{model}-few"]
    there = open_model(run)
    cells = tokenize(ad.read_h5ad(run.cells.path), there.tokenizer, min_rate=run.cells.min_match)
    saes = random_saes(there, range(there.n_layers), 2, 6)
    features = pd.DataFrame({"layer": 0, "feature": range(N_LATENTS), "frequency": 0.1, "mean_activation": 1.0})
    features = pd.concat([features.assign(layer=layer) for layer in saes])
    for name in JOBS:
        run = runs[f"{model}-{name}"]
        n = N_LATENTS if run.sources.rule == "all" else run.sources.n
        sources = {layer: range(n) for layer in range(there.n_layers - 1)}
        words, bare = parse_words(run.trace.interventions), Setup(there, saes, cells)
        extra = {layer: build(words, [(f,) for f in some], bare, layer, features) for layer, some in sources.items()}
        yield name, plan_trace(Setup.of(there, saes, cells, sources, run.trace, extra), n_calibration=1)


@pytest.mark.parametrize("model", ["all", "gpt"])
def test_a_study_plans_the_engine_and_memory_of_the_tracer(study: StudyConfig, planned: StudyPlan, model: str) -> None:
    rows = planned.stages.set_index("stage")
    for name, traced in tracer_plans(study, model):
        ours = planned.traces[f"{model}-{name}"]
        assert ours.engine == traced.engine == JOBS[name][0], name
        for setting in ("tokens", "score_bytes", "sources_per_block"):
            assert getattr(ours.settings, setting) == getattr(traced.settings, setting), (name, setting)
        assert ours.memory == traced.memory, name
        assert ours.table[["layer", "n_targets"]].equals(traced.table[["layer", "n_targets"]]), name
        assert rows.loc[f"trace:{model}-{name}", "memory"] >= traced.memory.peak + BASE, name


def test_what_is_said_of_the_traces(planned: StudyPlan) -> None:
    text = "\n".join(planned.lines())
    assert "trace:all-few by the exact engine" in text
    assert "trace:gpt-every by the local engine" in text
    assert "assumed: all-every: not in these numbers: the fidelity check" in text
    assert not any(note.startswith("all-few:") for note in planned.assumptions)
    rows = planned.stages.set_index("stage")
    for name in JOBS:
        row = rows.loc[f"trace:all-{name}"]
        assert 0 < row["random"] < row["ablated"], "decoys are counted apart"
        assert np.isfinite(row["seconds"])
        assert row["madds"] > 0
