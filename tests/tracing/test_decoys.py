"""Decoys take as much from the same places as the ablation does, of nothing in particular."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted import planted_cells, planted_model

from scircuit.circuits.schema import DECOYS
from scircuit.errors import ScircuitError
from scircuit.tracing.draws import decoys_of, draws, n_decoys, with_decoys
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.decoys import radial_rows, residual_roots
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.settings import TraceSettings

LAYER, FEATURE = 1, 2


@pytest.fixture(scope="module")
def setup():
    model, saes = planted_model()
    return model, saes, planted_cells(model, 6)


def edits(setup, interventions):
    model, saes, cells = setup
    clean = clean_batch(model, saes[LAYER], next(iter(cells.batches(6))), LAYER)
    jobs = make_jobs(clean, saes[LAYER], interventions)
    of = [[j for j in jobs if j.row == row] for row in range(len(interventions))]
    return clean, of


@pytest.mark.parametrize("kind", DECOYS)
def test_same_cells_positions_and_norms_and_one_direction_per_draw(setup, kind):
    settings = TraceSettings(decoy=kind, n_random=3)
    decoys = decoys_of(*setup, {LAYER: [FEATURE]}, settings)[LAYER]
    todo = with_decoys([FEATURE], decoys)
    assert [(i.kind, i.draw) for i in todo] == [("latent", 0), (kind, 1), (kind, 2), (kind, 3)]
    _, (own, *others) = edits(setup, todo)
    for jobs in others:
        assert [j.cell for j in jobs] == [j.cell for j in own]
        for mine, theirs in zip(own, jobs, strict=True):
            torch.testing.assert_close(theirs.edit.positions, mine.edit.positions)
            torch.testing.assert_close(theirs.edit.rows.norm(dim=1), mine.edit.rows.norm(dim=1))
    assert not torch.allclose(others[0][0].edit.rows, others[1][0].edit.rows)
    if kind != "radial":
        units = torch.cat([j.edit.rows / j.edit.rows.norm(dim=1, keepdim=True) for j in others[0]])
        torch.testing.assert_close(units, units[:1].expand_as(units))


def test_radial_decoys_leave_the_norm_that_the_ablation_leaves(setup):
    todo = [Intervention((FEATURE,)), Intervention((FEATURE,), "radial", draw=1)]
    clean, (own, decoys) = edits(setup, todo)
    for mine, theirs in zip(own, decoys, strict=True):
        h = clean.h[mine.cell][mine.edit.positions]
        torch.testing.assert_close((h + theirs.edit.rows).norm(dim=1), (h + mine.edit.rows).norm(dim=1))
        torch.testing.assert_close((h * theirs.edit.rows).sum(dim=1), (h * mine.edit.rows).sum(dim=1))


def test_radial_rows_by_hand():
    removed, residual = torch.tensor([[-1.0, -1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    rows = radial_rows(removed, residual, torch.tensor([5.0, 0.0, 3.0]))
    torch.testing.assert_close(rows, torch.tensor([[-1.0, 0.0, 1.0]]))


def test_covariance_is_that_of_the_residuals(setup):
    model, saes, cells = setup
    root = residual_roots(model, cells, [LAYER], 0)[LAYER]
    clean = clean_batch(model, saes[LAYER], next(iter(cells.batches(6))), LAYER)
    rows = torch.cat([clean.h[c][p] for c, p in enumerate(clean.positions)]).double()
    covariance = np.cov(rows.numpy().T)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    np.testing.assert_allclose(root @ root.T, shrunk, rtol=1e-5, atol=1e-5 * np.abs(shrunk).max())


def test_encoder_cosine_decoys_say_to_the_nearest_encoders_what_the_decoder_row_says(setup):
    """The direct path through the weights is theirs too; all else is drawn."""
    model, saes, _ = setup
    settings = TraceSettings(decoy="encoder_cosine", n_random=2)
    first, second = decoys_of(*setup, {LAYER: [FEATURE]}, settings)[LAYER][FEATURE]
    row = saes[LAYER].W_dec[FEATURE].double()
    encoders = torch.cat([sae.W_enc.double() for i, sae in saes.items() if i > LAYER], dim=1)
    cosine = (row @ encoders / encoders.norm(dim=0)).abs()
    nearest = encoders[:, cosine.topk(model.d_model // 4).indices]
    directions = [torch.tensor(decoy.direction, dtype=torch.float64) for decoy in (first, second)]
    for direction in directions:
        torch.testing.assert_close(direction @ nearest, row @ nearest, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(direction.norm(), row.norm(), atol=1e-6, rtol=1e-6)
    assert not torch.allclose(*directions)
    hidden = {**saes, LAYER + 1: SimpleNamespace(n_latents=4)}
    with pytest.raises(ScircuitError, match="does not show its encoder; use decoy='radial'"):
        decoys_of(model, hidden, setup[2], {LAYER: [FEATURE]}, settings)


def test_decoys_of_a_layer_traced_whole_cost_a_tenth():
    sources = list(range(1000))
    found = draws(sources, 1200, n_random=8, seed=0)
    numbers = np.concatenate(list(found.values()))
    assert len(numbers) == n_decoys(sources, 1200, 8, 0) == 100
    assert (numbers % 4 == 0).sum() == 25, "a fourth is held out"
    assert draws(sources, 5000, n_random=8, seed=0)[999] == list(range(1, 9)), "many sources, but not most of the layer"
    assert draws(sources, 1200, n_random=0, seed=0) == {}
    few = draws([3, 4], 4, n_random=4, seed=0)
    assert {feature: len(set(of)) for feature, of in few.items()} == {3: 4, 4: 4}


def test_draws_depend_on_the_seed_and_are_made_again_alike(setup):
    settings = TraceSettings(decoy="covariance", n_random=2)
    first, again = (decoys_of(*setup, {LAYER: [FEATURE]}, settings) for _ in range(2))
    assert first == again
    assert decoys_of(*setup, {LAYER: [FEATURE]}, replace(settings, seed=1)) != first


def test_an_unknown_decoy_is_refused():
    with pytest.raises(ScircuitError, match="random, radial, covariance, dictionary, encoder_cosine"):
        TraceSettings(decoy="encoder")
