"""Each kind of intervention against the sum of decoder rows that its definition asks for."""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import WIDTH, planted_cells, planted_model

from scircuit.errors import ScircuitError
from scircuit.tracing.controls import find_donors, matched_controls, matched_latents, resample
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.interventions import KINDS, Donor, Firings, Intervention
from scircuit.tracing.engines.naive import naive_response
from scircuit.tracing.setup import Setup


@pytest.fixture(scope="module")
def setup():
    model, saes = planted_model()
    store = planted_cells(model, 6)
    clean = clean_batch(model, saes[0], store.batch(np.array([2])), 0)
    return model, saes, store, clean, Firings(clean.latents[0], clean.positions[0], 2)


def dense(setup, features):
    _, saes, _, clean, _ = setup
    return clean.latents[0].dense(saes[0].n_latents)[:, features]


def expected_rows(setup, features, change, everywhere=False):
    """A plain loop: the change of each latent times its decoder row, where any of them fires."""
    _, saes, _, clean, _ = setup
    z = dense(setup, features)
    rows, positions = [], []
    for i, position in enumerate(clean.positions[0].tolist()):
        if everywhere or bool((z[i] > 0).any()):
            rows.append(sum(change(z[i, j], j) * saes[0].W_dec[f] for j, f in enumerate(features)))
            positions.append(position)
    return torch.tensor(positions), torch.stack(rows)


@pytest.mark.parametrize("features", [(1,), (0, 3), (4, 2, 1)])
@pytest.mark.parametrize(
    ("action", "value", "change"),
    [
        ("zero", 0.0, lambda z, j: -z),
        ("mean", 0.7, lambda z, j: 0.7 - z),
        ("set", 2.0, lambda z, j: 2.0 - z),
        ("scale", 3.0, lambda z, j: 2.0 * z),
        ("activate", 1.5, lambda z, j: 1.5 - z),
        ("activate", "each", lambda z, j: (j + 1.0) - z),
    ],
)
def test_rows_are_the_change_times_the_decoder(setup, features, action, value, change):
    if value == "each":
        value = tuple(j + 1.0 for j in range(len(features)))
    edit = Intervention(features, action, value).edit(setup[1][0], setup[4])
    positions, rows = expected_rows(setup, features, change, everywhere=action == "activate")
    assert torch.equal(edit.positions, positions)
    torch.testing.assert_close(edit.rows, rows, atol=1e-6, rtol=1e-6)


def test_a_mean_ablation_at_the_value_it_already_has_changes_nothing(setup):
    z = dense(setup, [2])[:, 0]
    firing = z[z > 0]
    edit = Intervention((2,), "mean", float(firing[0])).edit(setup[1][0], setup[4])
    assert bool((edit.rows[0] == 0).all())
    assert bool((edit.rows[1] != 0).any())


def test_activation_propagates_with_the_planted_weight(setup):
    model, saes, store, clean, firings = setup
    edit = Intervention((0,), "activate", 2.0).edit(saes[0], firings)
    found = naive_response(model, saes, store.batch(np.array([2])), 0, edit, [1])
    z = dense(setup, [0])[:, 0].double()
    assert float(found[1][2]) == pytest.approx(0.8 * float((2.0 - z).mean()), rel=1e-4)
    assert len(edit.positions) == len(clean.positions[0])


def test_resampled_values_come_from_one_other_cell_and_repeat(setup):
    model, saes, store, _, firings = setup
    (intervention,) = resample(Setup(model, saes, store), 0, [3], n_donors=4, seed=1)
    edit = intervention.edit(saes[0], firings)
    z = dense(setup, [3])[:, 0]
    values = edit.rows[:, 3] + z[z > 0]
    pools = {}
    for cell in range(len(store)):
        other = clean_batch(model, saes[0], store.batch(np.array([cell])), 0)
        pools[cell] = other.latents[0].dense(WIDTH)[:, 3]
    allowed = [c for c in pools if c != 2 and all(bool(torch.isclose(pools[c], v, atol=1e-6).any()) for v in values)]
    assert allowed, "every value is one that a single other cell holds"
    assert not torch.equal(values, z[z > 0])
    again = resample(Setup(model, saes, store), 0, [3], n_donors=4, seed=1)[0].edit(saes[0], firings)
    assert torch.equal(again.rows, edit.rows)
    other_seed = resample(Setup(model, saes, store), 0, [3], n_donors=4, seed=2)[0].edit(saes[0], firings)
    assert not torch.equal(other_seed.rows, edit.rows)


def test_resampling_does_not_depend_on_the_company_of_a_cell(setup):
    model, saes, store, _, _ = setup
    todo = resample(Setup(model, saes, store), 0, [1], n_donors=3, seed=0)
    together = make_jobs(clean_batch(model, saes[0], store.batch(np.arange(6)), 0), saes[0], todo)
    for job in together:
        alone = make_jobs(clean_batch(model, saes[0], store.batch(np.array([job.cell])), 0), saes[0], todo)
        assert torch.equal(alone[0].edit.rows, job.edit.rows)


def test_donors_hold_the_activations_of_their_cells(setup):
    model, saes, store, _, _ = setup
    (donors,) = find_donors(Setup(model, saes, store), 0, [0], n_donors=3, seed=0)
    assert len({donor.cell for donor in donors}) == 3
    for donor in donors:
        other = clean_batch(model, saes[0], store.batch(np.array([donor.cell])), 0)
        z = other.latents[0].dense(WIDTH)[:, 0]
        assert donor.n_positions == len(z)
        assert sorted(donor.values) == pytest.approx(sorted(z[z > 0].tolist()))


def test_a_cell_without_another_donor_is_refused(setup):
    own = ((Donor(2, 3, (1.0,)),),)
    with pytest.raises(ScircuitError, match="no donor but cell 2 itself"):
        Intervention((0,), "resample", donors=own).edit(setup[1][0], setup[4])
    with pytest.raises(ScircuitError, match="at least two"):
        resample(Setup(setup[0], setup[1], setup[2].subset(np.array([0]))), 0, [0])


def features_table():
    return pd.DataFrame(
        {"layer": 0, "feature": np.arange(6), "frequency": [0.1, 0.11, 0.5, 0.1, 0.0, 0.3],
         "mean_activation": [1.0, 1.1, 1.0, 9.0, 1.0, 2.0]}
    )  # fmt: skip


def test_the_matched_latent_is_the_nearest_in_rate_and_norm(setup):
    sae = setup[1][0]
    assert matched_latents(features_table(), sae, 0, 0) == [1]
    assert 4 not in matched_latents(features_table(), sae, 0, 0, 4), "dead latents match nothing"
    assert matched_latents(features_table(), sae, 0, 0, exclude=[1])[0] != 1
    with pytest.raises(ScircuitError, match="4 other live latents, 5 were asked for"):
        matched_latents(features_table(), sae, 0, 0, 5)
    with pytest.raises(ScircuitError, match="never fires"):
        matched_latents(features_table(), sae, 0, 4)


def test_a_matched_control_ablates_the_other_latent_for_the_source(setup):
    (control,) = matched_controls(features_table(), setup[1][0], 0, [0])
    assert (control.features, control.instead, control.kind, control.draw) == ((0,), (1,), "matched", 1)
    own = Intervention((1,)).edit(setup[1][0], setup[4])
    got = control.edit(setup[1][0], setup[4])
    assert torch.equal(got.positions, own.positions)
    assert torch.equal(got.rows, own.rows)


def test_kinds_are_distinct_and_complete(setup):
    donors = ((Donor(0, 1, ()), Donor(1, 1, ())),)
    single = [Intervention((0,), a, instead=(1,) * (a == "matched"), donors=donors * (a == "resample")).kind for a in
              ("zero", "random", "matched", "mean", "scale", "set", "resample", "activate")]  # fmt: skip
    assert len(set(single)) == len(single)
    assert {*single, Intervention((0, 1)).kind, Intervention((0, 1), "scale").kind} <= set(KINDS)
    assert len(set(KINDS)) == len(KINDS)
    assert Intervention((0, 1)).kind != Intervention((0,)).kind, "a group never counts as its first latent"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "freeze"}, "unknown; it may be zero"),
        ({"features": ()}, "at least one latent"),
        ({"features": (1, 1)}, "each named once"),
        ({"action": "set", "value": (1.0, 2.0)}, "2 values were given for 1 latents"),
        ({"action": "matched"}, "need instead="),
        ({"instead": (3,)}, "and no other"),
        ({"direction": (1.0,)}, "no other action takes it"),
        ({"action": "radial", "features": (1, 2)}, "of one latent"),
        ({"action": "resample"}, "needs donors="),
    ],
)
def test_wrong_interventions_are_refused(options, message):
    with pytest.raises(ScircuitError, match=message):
        Intervention(**({"features": (0,)} | options))
