"""Formulas of the multiply-adds against torch's own count of every product that the engines make."""

from dataclasses import replace

import numpy as np
import pytest
from dictionaries import random_saes
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scircuit.cells.tokens import tokenize
from scircuit.models.geneformer import load_geneformer
from scircuit.tracing.costs import clean_madds, exact_madds, forward_madds, local_madds
from scircuit.tracing.engines import attention
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.engines.naive import forward
from scircuit.tracing.setup import Setup
from scircuit.tracing.units import respond


@pytest.fixture(scope="module")
def inputs(geneformer_folder, cells):
    model = load_geneformer(geneformer_folder, device="cpu")
    saes = random_saes(40, k=5)
    store = tokenize(cells, model.tokenizer)
    clean = clean_batch(model, saes[0], store.batch(np.array([0, 3])), 0)
    return Setup(model, saes, store), clean, make_jobs(clean, saes[0], [Intervention((f,)) for f in range(0, 40, 5)])


def counted(work):
    """Multiply-adds of all matrix products in `work()`, as torch counts them."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() // 2


def test_a_forward(inputs):
    setup, clean, _ = inputs
    model, one = setup.model, clean.batch.take(np.array([1]))
    assert counted(lambda: forward(model, one)) == forward_madds(model, one.tokens.shape[1]) > 0


def test_the_clean_side(inputs):
    setup, clean, _ = inputs
    measured = counted(lambda: clean_batch(setup.model, setup.saes[0], clean.batch, 0))
    assert measured == clean_madds(replace(setup, targets={0: [1]}), clean) > 0


@pytest.mark.parametrize("targets", [[1], [3], [1, 2, 3]])
@pytest.mark.parametrize("tokens", [100, 400, 100_000])
def test_the_exact_engine(inputs, targets, tokens):
    setup, clean, jobs = inputs
    setup = replace(setup, targets={0: targets}).with_settings(engine="exact", tokens=tokens)
    assert counted(lambda: list(respond(setup, clean, jobs))) == exact_madds(setup, clean, jobs) > 0


@pytest.mark.parametrize("targets", [[1], [3], [1, 2, 3]])
@pytest.mark.parametrize("context_rows", [0.0, 1.0, 3.5])
@pytest.mark.parametrize("score_bytes", [1 << 12, 1 << 27])
def test_the_local_engine(monkeypatch, inputs, targets, context_rows, score_bytes):
    setup, clean, jobs = inputs
    # The fused kernel makes the same products where torch cannot count them.
    monkeypatch.setattr(attention, "_flash", attention._plain)
    options = {"context_rows": context_rows, "score_bytes": score_bytes}
    setup = replace(setup, targets={0: targets}).with_settings(engine="local", **options)
    assert counted(lambda: list(respond(setup, clean, jobs))) == local_madds(setup, clean, jobs) > 0
