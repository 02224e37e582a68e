"""Exact zeros do not hang on kernels that give a row the same bits wherever it stands in a batch.

Many kernels do not. Here every layer and every dictionary is made to answer a little differently in each row of its
input, and what changes nothing must still be exactly 0.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import random_saes

from scircuit.cells.tokens import tokenize
from scircuit.models.geneformer import load_geneformer
from scircuit.models.scgpt import load_scgpt
from scircuit.sae.topk import TopKSAE
from scircuit.tracing.engines.clean import Job, clean_batch, make_jobs
from scircuit.tracing.engines.exact import suffix_responses
from scircuit.tracing.engines.interventions import Edit, Intervention
from scircuit.tracing.engines.local import local_responses
from scircuit.tracing.probes.interactions import trace_interactions
from scircuit.tracing.probes.mediation import trace_mediation
from scircuit.tracing.probes.readouts import readout
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup

NOISE = 1e-5


def uneven(x):
    """`x` with noise that depends on the place of a row in the batch, not on the row."""
    generator = torch.Generator().manual_seed(x.numel())
    return x + NOISE * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.fixture(params=["geneformer", "scgpt"])
def setup(request, geneformer_folder, scgpt_folder, cells, monkeypatch):
    """Model, dictionaries and tokens, on a machine whose kernels are uneven."""
    load, folder = {"geneformer": (load_geneformer, geneformer_folder), "scgpt": (load_scgpt, scgpt_folder)}[
        request.param
    ]
    model = load(folder, device="cpu")
    for block in model.blocks:
        monkeypatch.setattr(block, "finish", lambda h, context, own=block.finish: uneven(own(h, context)))
    encode = TopKSAE.encode
    monkeypatch.setattr(TopKSAE, "encode", lambda sae, x: encode(sae, uneven(x)))
    return model, random_saes(model, 40, k=6), tokenize(cells, model.tokenizer, rows=np.arange(6))


def jobs_with_null_edits(model, saes, store):
    clean = clean_batch(model, saes[0], store.batch(np.arange(4)), 0)
    real = make_jobs(clean, saes[0], [Intervention((f,)) for f in range(0, 40, 7)])
    null = [Job(0, c, Edit(p[:5], torch.zeros(len(p[:5]), 32))) for c, p in enumerate(clean.positions)]
    jobs = sorted([*real, *null], key=lambda job: job.cell)
    assert len(jobs) > len(null) + 6
    return clean, jobs


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        (suffix_responses, {"tokens": 1}),
        (suffix_responses, {"tokens": 150}),
        (suffix_responses, {"tokens": 10_000}),
        (local_responses, {}),
        (local_responses, {"context_rows": 1.0}),
        (readout, {"where": "active"}),
        (readout, {"where": "all", "what": "pre_activation"}),
        (readout, {"where": "all", "what": "embedding"}),
    ],
)
def test_a_null_edit_is_exactly_zero_and_a_real_one_is_not(setup, engine, options):
    model, saes, store = setup
    clean, jobs = jobs_with_null_edits(model, saes, store)
    seen = 0
    by = (Setup(model, saes, store),) if engine is readout else (model, saes)
    for r in engine(*by, clean, jobs, [1, 2], **options):
        for number, delta in zip(r.job, r.delta, strict=True):
            assert bool((delta == 0).all()) == bool((jobs[number].edit.rows == 0).all())
            seen += 1
    assert seen >= len(jobs)


def silent_latents(model, saes, store, layer):
    """Two latents of a layer, kept from firing in any cell."""
    with torch.no_grad():
        saes[layer].b_enc[[3, 4]] = -1e3
    return [(layer, 3), (layer, 4)]


def test_a_set_that_removes_nothing_has_no_effect_and_adds_nothing(setup):
    model, saes, store = setup
    silent, silent_above = silent_latents(model, saes, store, 0)[0], silent_latents(model, saes, store, 1)[0]
    live = next((0, f) for f in range(5, 40) if fires_everywhere(model, saes, store, f))
    setup = Setup(model, saes, store, settings=TraceSettings(tokens=200))
    found = trace_interactions(setup, [[live, silent], [live, silent_above]], targets=[2])
    effects = found.effects
    for _, rows in effects.groupby("set_id"):
        alone, nothing, both = (rows[rows["subset"] == subset].drop(columns="subset") for subset in (1, 2, 3))
        assert (nothing["delta"] == 0).all(), "the latent that fires nowhere is removed without effect"
        assert len(alone) > 20
        pd.testing.assert_frame_equal(
            alone.reset_index(drop=True), both.reset_index(drop=True), check_exact=True
        )  # no interaction, to the last bit


def fires_everywhere(model, saes, store, feature):
    return all(
        bool((clean_batch(model, saes[0], store.batch(np.array([c])), 0).latents[0].column(feature) > 0).any())
        for c in range(len(store))
    )


def test_holding_a_latent_that_fires_nowhere_carries_exactly_nothing(setup):
    model, saes, store = setup
    _, feature = silent_latents(model, saes, store, 1)[0]
    live = next(f for f in range(40) if fires_everywhere(model, saes, store, f))
    columns = ["source_layer", "source_feature", "target_layer", "target_feature", "mediator_layer",
               "mediator_feature", "kind"]  # fmt: skip
    table = pd.DataFrame([(0, live, 2, t, 1, feature, "random") for t in range(40)], columns=columns)
    found = trace_mediation(Setup(model, saes, store), table)
    assert (found["delta"] == found["delta_held"]).all()
    assert (found["delta"] != 0).any()
