"""Every read-out against full forwards, position by position."""

import numpy as np
import pytest
import torch
from planted import planted_cells, planted_model, random_saes

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.models.scgpt import load_scgpt
from scircuit.tracing.engines.clean import Job, clean_batch, make_jobs
from scircuit.tracing.engines.exact import suffix_responses
from scircuit.tracing.engines.interventions import Edit, Intervention
from scircuit.tracing.engines.naive import forward
from scircuit.tracing.probes.readouts import readout
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup


@pytest.fixture(scope="module")
def setups(geneformer_folder, scgpt_folder, cells):
    out = {}
    for name, load, folder in (("geneformer", load_geneformer, geneformer_folder), ("scgpt", load_scgpt, scgpt_folder)):
        model = load(folder, device="cpu")
        saes = random_saes(model, 40, k=6)
        store = tokenize(cells, model.tokenizer, rows=np.arange(6))
        clean = clean_batch(model, saes[0], store.batch(np.array([0, 3, 5])), 0)
        todo = [Intervention((f,)) for f in range(0, 40, 8)] + [Intervention((2, 9), "scale", 2.0)]
        out[name] = (
            Setup(model, saes, store, settings=TraceSettings(tokens=150)),
            clean,
            make_jobs(clean, saes[0], todo),
        )
        assert len(out[name][2]) > 5
    return out


def collect(*args, **options):
    found = {}
    for r in readout(*args, **options):
        for i, job in enumerate(r.job):
            assert (r.layer, job) not in found
            found[r.layer, int(job)] = r.delta[i], r.clean[i]
    return found


def naive(model, saes, clean, job, layer, where, what):
    """Mean over the positions of what is read of each, edited minus clean, one position at a time."""
    one = clean.batch.take(np.array([job.cell]))
    before, after = forward(model, one)[layer][0], forward(model, one, clean.layer, job.edit)[layer][0]
    edited = set(job.edit.positions.tolist())
    genes = [p for p in range(one.tokens.shape[1]) if one.is_gene[0, p]]
    positions = {"active": sorted(edited), "other": [p for p in genes if p not in edited], "all": genes}[where]

    def read(h):
        if what == "embedding":
            return h
        if what == "logits":
            return model.logits(h[None])[0]
        pre = (h - saes[layer].mean) @ saes[layer].W_enc + saes[layer].b_enc
        if what == "pre_activation":
            return pre
        values, indices = pre.topk(saes[layer].config.k)
        return torch.zeros_like(pre).scatter(0, indices, values.relu())

    clean_values = torch.stack([read(before[p]).double() for p in positions])
    values = torch.stack([read(after[p]).double() for p in positions])
    return (values - clean_values).mean(dim=0), clean_values.mean(dim=0)


@pytest.mark.parametrize("name", ["geneformer", "scgpt"])
@pytest.mark.parametrize(
    ("where", "what"),
    [("active", "activation"), ("other", "activation"), ("all", "activation"), ("active", "pre_activation"),
     ("other", "pre_activation"), ("active", "logits"), ("all", "logits"), ("all", "embedding")],
)  # fmt: skip
def test_every_readout_equals_a_plain_loop(setups, name, where, what):
    setup, clean, jobs = setups[name]
    targets = [1, 2] if "activation" in what else []
    found = collect(setup, clean, jobs, targets, where=where, what=what)
    layers = targets or [setup.model.n_layers - 1]
    assert set(found) == {(layer, n) for layer in layers for n in range(len(jobs))}
    largest = 0.0
    for (layer, number), (delta, before) in found.items():
        expected = naive(setup.model, setup.saes, clean, jobs[number], layer, where, what)
        torch.testing.assert_close(delta, expected[0], atol=3e-5, rtol=1e-3)
        torch.testing.assert_close(before, expected[1], atol=1e-4, rtol=1e-3)
        largest = max(largest, float(delta.abs().max()))
    assert largest > 1e-3


def test_the_published_readout_is_that_of_the_engine(setups):
    setup, clean, jobs = setups["geneformer"]
    found = collect(setup, clean, jobs, [1, 3])
    for r in suffix_responses(setup.model, setup.saes, clean, jobs, [1, 3]):
        for i, job in enumerate(r.job):
            torch.testing.assert_close(found[r.layer, int(job)][0], r.delta[i], atol=1e-5, rtol=1e-4)


def test_all_positions_are_the_edited_and_the_others(setups):
    setup, clean, jobs = setups["geneformer"]
    active, other, every = (collect(setup, clean, jobs, [2], where=w) for w in ("active", "other", "all"))
    for key, (delta, _) in every.items():
        job = jobs[key[1]]
        n, total = len(job.edit.positions), len(clean.positions[job.cell])
        torch.testing.assert_close(
            delta * total, active[key][0] * n + other[key][0] * (total - n), atol=1e-4, rtol=1e-4
        )


def test_a_null_edit_reads_exactly_zero(setups):
    setup, clean, jobs = setups["geneformer"]
    null = Job(0, 1, Edit(clean.positions[1][:3], torch.zeros(3, 32)))
    for what in ("activation", "pre_activation", "logits"):
        found = collect(setup, clean, [jobs[0], null, *jobs[1:3]], [1], where="all", what=what)
        assert all(bool((delta == 0).all()) == (n == 1) for (_, n), (delta, _) in found.items())


def test_a_model_without_attention_changes_nothing_elsewhere():
    model, saes = planted_model()
    setup = Setup(model, saes, planted_cells(model, 3))
    clean = clean_batch(model, saes[0], setup.cells.batch(np.arange(3)), 0)
    jobs = make_jobs(clean, saes[0], [Intervention((0,))])
    assert all(bool((delta == 0).all()) for delta, _ in collect(setup, clean, jobs, [1], where="other").values())
    assert all(bool((delta != 0).any()) for delta, _ in collect(setup, clean, jobs, [1]).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "here"}, "where='here' is unknown; it may be active"),
        ({"what": "loss"}, "what='loss' is unknown; it may be activation"),
        ({"what": "embedding"}, "use where='all'"),
        ({"targets": []}, "none was given"),
        ({"targets": [0]}, "layer 0 is none"),
        ({"what": "logits"}, "planted shows no masked-token head"),
    ],
)
def test_wrong_readouts_are_refused(options, message):
    model, saes = planted_model()
    setup = Setup(model, saes, planted_cells(model, 2))
    clean = clean_batch(model, saes[0], setup.cells.batch(np.arange(2)), 0)
    with pytest.raises(ScircuitError, match=message):
        list(readout(setup, clean, make_jobs(clean, saes[0], [Intervention((0,))]), **({"targets": [1]} | options)))
