"""Outputs per gene, against Hugging Face's own model and against edits made by hand."""

import numpy as np
import pytest
import torch

from scircuit.cells.batch import Role, TokenBatch
from scircuit.errors import ScircuitError
from scircuit.models.load import load_model
from scircuit.models.stream import residuals, resume
from scircuit.sae.base import LinearSAE
from scircuit.sae.settings import SaeTraining
from scircuit.sae.training import train_saes
from scircuit.tracing.probes.outputs import (
    OutputChange,
    ablation_outputs,
    delete_gene,
    deletion_outputs,
    require_outputs,
)


@pytest.fixture(scope="module")
def geneformer(geneformer_folder):
    return load_model(geneformer_folder, device="cpu")


@pytest.fixture(scope="module")
def scgpt(scgpt_folder):
    return load_model(scgpt_folder, device="cpu")


def dictionary(model, batch: TokenBatch, layer: int) -> LinearSAE:
    h = residuals(model, batch, [layer])[layer][torch.from_numpy(batch.is_gene)]
    settings = SaeTraining(expansion=2, k=6, n_steps=20, batch_rows=64, buffer_rows=1000)
    return train_saes(lambda epoch: iter([{layer: h}]), model.d_model, (layer,), settings, model.device)[layer]


@pytest.fixture(scope="module", params=["geneformer", "scgpt"])
def case(request, cells):
    model = request.getfixturevalue(request.param)
    batch = next(model.batches(cells[:6].copy(), batch_size=6))
    return model, batch, dictionary(model, batch, 1)


def own_output(model, said: torch.Tensor, token: int) -> float:
    return float(said[0] if said.shape[0] == 1 else said[token])


def test_ablation_equals_an_edit_by_hand(case):
    model, batch, sae = case
    found = ablation_outputs(model, sae, 1, range(8), [batch], tokens=60)
    assert found.n_cells.sum() > 0
    h = residuals(model, batch, [1])[1]
    clean = list(resume(model, h, 1, batch))[-1][1]
    total, n = np.zeros(found.total.shape), np.zeros(found.n_cells.shape, dtype=int)
    for row in range(len(batch)):
        at = torch.from_numpy(batch.is_gene[row]).nonzero()[:, 0]
        z = sae.encode(h[row, at]).dense(sae.n_latents)
        for feature in range(8):
            if not (z[:, feature] > 0).any():
                continue
            edited = h.clone()
            edited[row, at] -= z[:, feature, None] * sae.W_dec[feature]
            after = list(resume(model, edited, 1, batch))[-1][1]
            for position in at.tolist():
                token, gene = int(batch.tokens[row, position]), int(batch.gene[row, position])
                pair = [own_output(model, model.logits(state[row, position]), token) for state in (after, clean)]
                total[feature, gene] += pair[0] - pair[1]
                n[feature, gene] += 1
    assert np.array_equal(found.n_cells, n)
    np.testing.assert_allclose(found.total, total, atol=2e-4)


def test_chunks_do_not_change_the_sums(case):
    model, batch, sae = case
    whole = ablation_outputs(model, sae, 1, [0, 1, 2], [batch])
    small = ablation_outputs(model, sae, 1, [0, 1, 2], [batch.take([i]) for i in range(len(batch))], tokens=1)
    assert np.array_equal(whole.n_cells, small.n_cells)
    np.testing.assert_allclose(whole.total, small.total, atol=1e-4)


def test_deletion_equals_the_original_model_without_the_token(geneformer, geneformer_folder, cells):
    transformers = pytest.importorskip("transformers")
    original = transformers.BertForMaskedLM.from_pretrained(geneformer_folder).eval()
    batch = next(geneformer.batches(cells[:8].copy(), batch_size=8))
    gene = int(batch.gene[0, batch.is_gene[0]][2])
    holding = np.flatnonzero((batch.gene == gene).any(axis=1))
    found = deletion_outputs(geneformer, [gene], [(0, [batch.take(holding)])])
    total, n = np.zeros(len(geneformer.genes)), np.zeros(len(geneformer.genes), dtype=int)
    for row in holding:
        real = batch.role[row] != Role.PAD
        tokens, genes = batch.tokens[row, real], batch.gene[row, real]
        keep = genes != gene
        with torch.inference_mode():
            before, after = (original(torch.from_numpy(t)[None]).logits[0] for t in (tokens, tokens[keep]))
        place = np.flatnonzero(keep)
        for now, then in enumerate(place):
            if genes[then] >= 0:
                total[genes[then]] += float(after[now, tokens[then]] - before[then, tokens[then]])
                n[genes[then]] += 1
    assert np.array_equal(found.n_cells[0], n)
    np.testing.assert_allclose(found.total[0], total, atol=2e-4)
    assert n[gene] == 0


def test_a_model_without_positions_only_loses_the_token(scgpt, cells):
    batch = next(scgpt.batches(cells[:4].copy(), batch_size=4))
    gene = int(batch.gene[1, batch.is_gene[1]][0])
    holding = batch.take(np.flatnonzero((batch.gene == gene).any(axis=1)), trim=False)
    without = delete_gene(holding, gene)
    assert without.values.shape == without.tokens.shape == (len(holding), holding.tokens.shape[1] - 1)
    assert not (without.gene == gene).any()
    assert deletion_outputs(scgpt, [gene], [(0, [holding])]).n_cells.max() == len(holding)


def test_only_cells_that_hold_a_gene_can_lose_it(scgpt, cells):
    batch = next(scgpt.batches(cells[:4].copy(), batch_size=4))
    absent = next(g for g in range(60) if not (batch.gene == g).any(axis=1).all())
    with pytest.raises(ScircuitError, match="does not hold gene"):
        delete_gene(batch, absent)


def test_a_model_without_a_head_is_refused_and_nothing_counted_is_nan():
    class Headless:
        name = "foreign"

    with pytest.raises(ScircuitError, match="no masked-token head"):
        require_outputs(Headless())
    assert np.isnan(OutputChange.zeros(1, 3).mean()).all()
