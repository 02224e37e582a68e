"""The exact engine equals the readable oracle, and both equal a hook in Hugging Face's own model."""

from functools import partial

import numpy as np
import pytest
import torch
import transformers

from builders import save_llama
from scircuit.cells.tokens import tokenize
from scircuit.models.geneformer import load_geneformer
from scircuit.models.hooked import HookedModel
from scircuit.models.maxtoki import load_maxtoki
from scircuit.models.scgpt import load_scgpt
from scircuit.models.stream import gene_rows
from scircuit.sae.settings import SaeTraining
from scircuit.sae.training import train_saes
from scircuit.tracing.engines.clean import Job, clean_batch, make_jobs
from scircuit.tracing.engines.exact import pack, suffix_responses
from scircuit.tracing.engines.interventions import Edit, Firings, Intervention
from scircuit.tracing.engines.naive import forward, naive_response


@pytest.fixture(scope="module")
def setups(geneformer_folder, scgpt_folder, cells, vocabulary, tmp_path_factory):
    """Model, dictionaries trained on it, and tokens, for every architecture."""
    llama = tmp_path_factory.mktemp("llama")
    save_llama(llama, vocabulary, hidden_size=32, num_hidden_layers=4)
    out = {}
    for name, load, folder in (
        ("geneformer", load_geneformer, geneformer_folder),
        ("scgpt", load_scgpt, scgpt_folder),
        ("maxtoki", load_maxtoki, llama),
    ):
        model = load(folder, device="cpu")
        store = tokenize(cells, model.tokenizer)
        config = SaeTraining(k=6, n_steps=60, batch_rows=64, buffer_rows=2000, expansion=2)

        def stream(epoch, model=model, store=store):
            return (rows for rows, _, _ in gene_rows(model, store.batches(8), range(model.n_layers)))

        out[name] = (model, train_saes(stream, 32, range(model.n_layers), config), store)
    return out


def all_responses(model, saes, clean, jobs, targets, **options):
    found = {t: [None] * len(jobs) for t in targets}
    clean_values = {t: [None] * len(jobs) for t in targets}
    for r in suffix_responses(model, saes, clean, jobs, targets, **options):
        for i, number in enumerate(r.job):
            assert found[r.layer][number] is None, "each job answers once per layer"
            found[r.layer][number], clean_values[r.layer][number] = r.delta[i], r.clean[i]
    return found, clean_values


@pytest.mark.parametrize("name", ["geneformer", "scgpt", "maxtoki"])
@pytest.mark.parametrize("layer", [0, 1])
def test_suffix_equals_naive_for_every_job_and_target(setups, name, layer):
    model, saes, store = setups[name]
    batch = store.batch(np.array([0, 4, 9]))
    targets = list(range(layer + 1, model.n_layers))
    clean = clean_batch(model, saes[layer], batch, layer)
    interventions = [Intervention((f,)) for f in range(0, 64, 9)] + [Intervention((9,), "random", draw=1)]
    jobs = make_jobs(clean, saes[layer], interventions)
    assert len(jobs) > 6
    found, _ = all_responses(model, saes, clean, jobs, targets, tokens=200)
    nonzero = 0
    for number, job in enumerate(jobs):
        one = batch.take(np.array([job.cell]))
        expected = naive_response(model, saes, one, layer, job.edit, targets)
        for t in targets:
            torch.testing.assert_close(found[t][number], expected[t], atol=2e-5, rtol=1e-4)
            nonzero += int((expected[t] != 0).sum())
    assert nonzero > 50


def test_clean_values_are_the_clean_activations_at_the_edited_positions(setups):
    model, saes, store = setups["geneformer"]
    batch = store.batch(np.array([2, 6]))
    clean = clean_batch(model, saes[1], batch, 1)
    jobs = make_jobs(clean, saes[1], [Intervention((f,)) for f in range(64)])
    _, values = all_responses(model, saes, clean, jobs, [3])
    for job, got in zip(jobs, values[3], strict=True):
        state = forward(model, batch.take(np.array([job.cell])))[3][0]
        dense = saes[3].encode(state).dense(64)[job.edit.positions].double().mean(dim=0)
        torch.testing.assert_close(got, dense, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["geneformer", "scgpt"])
@pytest.mark.parametrize("tokens", [1, 90, 10_000])
def test_a_null_edit_gives_exactly_zero_in_any_company(setups, name, tokens):
    model, saes, store = setups[name]
    batch = store.batch(np.arange(6))
    clean = clean_batch(model, saes[0], batch, 0)
    real = make_jobs(clean, saes[0], [Intervention((f,)) for f in range(12)])
    null = [
        Job(0, cell, Edit(positions[:5], torch.zeros(len(positions[:5]), 32)))
        for cell, positions in enumerate(clean.positions)
    ]
    jobs = sorted([*real, *null], key=lambda job: job.cell)
    found, _ = all_responses(model, saes, clean, jobs, [1, 2], tokens=tokens)
    for t in (1, 2):
        for job, delta in zip(jobs, found[t], strict=True):
            is_null = bool((job.edit.rows == 0).all())
            assert bool((delta == 0).all()) == is_null


def test_ablation_removes_exactly_the_latents_part_and_nothing_else(setups):
    model, saes, store = setups["geneformer"]
    clean = clean_batch(model, saes[2], store.batch(np.array([3])), 2)
    latents, positions = clean.latents[0], clean.positions[0]
    feature = int(latents.indices[0, 0])
    firings = Firings(latents, positions)
    edit = Intervention((feature,)).edit(saes[2], firings)
    z = latents.column(feature)
    assert edit.positions.tolist() == positions[z > 0].tolist()
    assert torch.equal(edit.rows, -z[z > 0][:, None] * saes[2].W_dec[feature])
    assert Intervention((feature,), "scale", value=1.0).edit(saes[2], firings).rows.abs().max() == 0
    never = next(f for f in range(64) if not bool((latents.column(f) > 0).any()))
    assert Intervention((never,)).edit(saes[2], firings) is None


def test_random_directions_match_the_norm_and_are_reproducible(setups):
    model, saes, store = setups["geneformer"]
    clean = clean_batch(model, saes[0], store.batch(np.array([3])), 0)
    feature = int(clean.latents[0].indices[0, 0])
    firings = Firings(clean.latents[0], clean.positions[0])

    def rows(**options):
        return Intervention((feature,), "random", **options).edit(saes[0], firings).rows

    own = Intervention((feature,)).edit(saes[0], firings).rows
    torch.testing.assert_close(rows(draw=1).norm(dim=1), own.norm(dim=1), atol=1e-6, rtol=1e-5)
    assert torch.equal(rows(draw=1), rows(draw=1))
    assert not torch.equal(rows(draw=1), rows(draw=2))
    assert not torch.equal(rows(draw=1), rows(draw=1, seed=5))
    assert abs(float(torch.cosine_similarity(rows(draw=1)[0], own[0], dim=0))) < 0.6


def test_naive_equals_a_forward_hook_in_hugging_face(setups, geneformer_folder):
    model, saes, store = setups["geneformer"]
    batch = store.batch(np.array([5]))
    clean = clean_batch(model, saes[1], batch, 1)
    job = make_jobs(clean, saes[1], [Intervention((int(clean.latents[0].indices[3, 0]),))])[0]
    hf = transformers.BertForMaskedLM.from_pretrained(geneformer_folder).eval()
    tokens = torch.from_numpy(batch.tokens)

    seen = {}

    def keep(module, args, out, layer=None):
        h = out if isinstance(out, torch.Tensor) else out[0]
        seen[layer] = h.detach()

    def edit(module, args, out):
        h = (out if isinstance(out, torch.Tensor) else out[0]).clone()
        h[0, job.edit.positions] += job.edit.rows
        return h if isinstance(out, torch.Tensor) else (h, *out[1:])

    def run(edited):
        layers = hf.bert.encoder.layer
        hooks = [layers[1].register_forward_hook(edit)] if edited else []
        hooks += [layers[i].register_forward_hook(partial(keep, layer=i)) for i in (2, 3)]
        with torch.no_grad():
            hf(input_ids=tokens)
        for hook in hooks:
            hook.remove()
        return dict(seen)

    states = [run(edited=False), run(edited=True)]
    ours = naive_response(model, saes, batch, 1, job.edit, [2, 3])
    for t in (2, 3):
        z = [saes[t].encode(s[t][0]).dense(64).double() for s in states]
        expected = (z[1] - z[0])[job.edit.positions].mean(dim=0)
        torch.testing.assert_close(ours[t], expected, atol=1e-5, rtol=1e-4)


def test_suffix_runs_on_a_hooked_model(setups, geneformer_folder):
    model, saes, store = setups["geneformer"]
    hf = transformers.BertForMaskedLM.from_pretrained(geneformer_folder)

    def call(module, batch):
        mask = torch.from_numpy((batch.role != 0).astype(np.int64))
        return module(input_ids=torch.from_numpy(batch.tokens), attention_mask=mask)

    foreign = HookedModel(hf, blocks="bert.encoder.layer", call=call, tokenizer=model.tokenizer, name="hf", d_model=32)
    batch = store.batch(np.array([0, 8]))
    results = []
    for m in (model, foreign):
        clean = clean_batch(m, saes[0], batch, 0)
        jobs = make_jobs(clean, saes[0], [Intervention((f,)) for f in range(20)])
        results.append(all_responses(m, saes, clean, jobs, [3])[0][3])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_packing_respects_the_budget_and_loses_nothing():
    empty = Edit(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    jobs = [Job(i, cell, empty) for cell in range(5) for i in range(7)]
    for size in (2, 3, 8, 100):
        chunks = list(pack(jobs, size))
        assert [n for chunk in chunks for n in chunk] == list(range(35))
        for chunk in chunks:
            sequences = len(chunk) + len({jobs[n].cell for n in chunk})
            assert sequences <= size or len(chunk) == 1
