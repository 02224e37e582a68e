"""The numerical floor: noise is zero on any processor, a small response that is real stays, and the floor has units."""

import numpy as np
import pytest
import torch
from planted import random_saes

from scircuit.cells.tokens import tokenize
from scircuit.models.geneformer import load_geneformer
from scircuit.models.scgpt import load_scgpt
from scircuit.sae.base import SaeConfig
from scircuit.sae.topk import TopKSAE
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.exact import suffix_responses
from scircuit.tracing.engines.interventions import Edit, Intervention
from scircuit.tracing.engines.local import local_responses
from scircuit.tracing.engines.naive import naive_response
from scircuit.tracing.floor import Floor, relative_floor

ENGINES = pytest.mark.parametrize("engine", [suffix_responses, local_responses])
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(params=["geneformer", "scgpt"])
def setup(request, geneformer_folder, scgpt_folder, cells):
    load, folder = {"geneformer": (load_geneformer, geneformer_folder), "scgpt": (load_scgpt, scgpt_folder)}[
        request.param
    ]
    model = load(folder, device="cpu")
    saes = random_saes(model, 40, k=40)  # all latents: rounding brings none in or out
    store = tokenize(cells, model.tokenizer, rows=np.arange(4))
    clean = clean_batch(model, saes[0], store.batch(np.arange(4)), 0)
    return model, saes, clean, make_jobs(clean, saes[0], [Intervention((f,)) for f in range(0, 40, 7)])


def responses(engine, model, saes, clean, jobs, targets=(1, 2)):
    found = {t: [None] * len(jobs) for t in targets}
    for r in engine(model, saes, clean, jobs, targets):
        for number, delta in zip(r.job, r.delta, strict=True):
            found[r.layer][number] = delta
    return torch.stack([torch.stack(found[t]) for t in targets])


def scaled(jobs, factor):
    return [job._replace(edit=Edit(job.edit.positions, job.edit.rows * factor)) for job in jobs]


@ENGINES
def test_noise_of_kernels_is_no_response(setup, engine, monkeypatch):
    """An edit that moves the last bits of its rows only: what comes out is rounding, other in every kernel."""
    model, saes, clean, jobs = setup
    assert (responses(engine, model, saes, clean, jobs) != 0).float().mean() > 0.5
    tiny = scaled(jobs, EPS)
    assert all(bool(job.edit.rows.any()) for job in tiny)
    assert not responses(engine, model, saes, clean, tiny).any()

    def uneven(x):
        return x * (1 + EPS * torch.randn(x.shape, generator=torch.Generator().manual_seed(x.numel())))

    encode = TopKSAE.encode
    monkeypatch.setattr(TopKSAE, "encode", lambda sae, x: encode(sae, uneven(x)))
    for block in model.blocks:
        monkeypatch.setattr(block, "finish", lambda h, context, own=block.finish: uneven(own(h, context)))
    assert not responses(engine, model, saes, clean, tiny).any()
    assert (responses(engine, model, saes, clean, jobs) != 0).float().mean() > 0.5


@ENGINES
def test_engines_and_oracle_draw_the_same_line(setup, engine):
    """With edits so small that responses lie on both sides of the floor; float64 says what is real."""
    model, saes, clean, jobs = setup
    small = scaled(jobs, 3e-5)
    found = responses(engine, model, saes, clean, small, (1,))[0]
    exact = (model.double(), {layer: sae.double() for layer, sae in saes.items()})
    true = []
    for job in small:
        batch = clean.batch.take(np.array([job.cell]))
        edit = Edit(job.edit.positions, job.edit.rows.double())
        true.append(naive_response(*exact, batch, 0, edit, [1])[1])
    true = torch.stack(true)
    assert 0.02 < (found == 0).float().mean() < 0.98
    counted = found != 0
    assert torch.equal(found[counted].sign(), true[counted].sign()), "nothing that counts is noise"
    floor = relative_floor(torch.float32, torch.device("cpu"))
    assert true[~counted].abs().max() < 2 * floor * clean.h.abs().max(), "nothing large is lost"


def test_the_oracle_has_the_floor_too(setup):
    model, saes, clean, jobs = setup
    batch = clean.batch.take(np.array([jobs[0].cell]))
    assert not naive_response(model, saes, batch, 0, scaled(jobs, EPS)[0].edit, [1])[1].any()
    assert naive_response(model, saes, batch, 0, jobs[0].edit, [1])[1].any()


def test_the_floor_is_in_units_of_the_activations():
    """c times larger residuals or decoders, n positions, another precision: by hand."""
    h = torch.tensor([[3.0, -4.0, 0.0, 5.0]]).expand(9, -1)  # RMS = sqrt(12.5)
    decoder = torch.tensor([[1.0, 0, 0, 0], [0, 4.0, 0, 0]])
    sae = TopKSAE(SaeConfig("topk", 4, 2, k=2), decoder.T.clone(), torch.zeros(2), decoder, torch.zeros(4))
    least = 64 * EPS * 12.5**0.5 / 3  # nine positions

    def kept(delta, rows=h, of=sae, dtype=torch.float32):
        return (Floor.of(of, dtype).apply(torch.tensor([delta], dtype=torch.float64), rows) != 0)[0].tolist()

    assert kept([least * 1.01, least / 4 * 1.01]) == [True, True]
    assert kept([least * 0.99, -least / 4 * 0.99]) == [False, False]
    assert kept([least * 1.01, 0.0], 2 * h) == [False, False]
    assert kept([least * 2.02, 0.0], 2 * h) == [True, False]
    assert kept([least * 1.01, 0.0], h[:4]) == [False, False], "fewer positions average less noise away"
    coarse = 2 * torch.finfo(torch.bfloat16).eps + 62 * EPS
    assert kept([coarse * 12.5**0.5 / 3 * 1.01, 0.0], dtype=torch.bfloat16) == [True, False]
    assert kept([coarse * 12.5**0.5 / 3 * 0.99, 0.0], dtype=torch.bfloat16) == [False, False]
    assert relative_floor(torch.float64, torch.device("cpu")) == 64 * torch.finfo(torch.float64).eps


def test_jobs_of_different_sizes_have_their_own_floor():
    """Rows of several jobs, in one call and one by one."""
    g = torch.Generator().manual_seed(0)
    h, of_job = torch.randn(12, 6, generator=g), torch.tensor([0] * 2 + [1] * 7 + [2] * 3)
    floor = Floor(torch.rand(5, generator=g, dtype=torch.float64) + 0.5, 0.5)
    delta = torch.randn(3, 5, generator=g, dtype=torch.float64)
    together = floor.apply(delta, h, of_job)
    alone = torch.cat([floor.apply(delta[j : j + 1], h[of_job == j]) for j in range(3)])
    assert torch.equal(together, alone)
    assert 0 < int((together == 0).sum()) < 15
