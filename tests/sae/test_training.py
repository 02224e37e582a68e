"""Training: unit-norm rows, reproducibility, recovery of planted directions, refusals."""

import re
from dataclasses import replace

import pytest
import torch

from scircuit.errors import ScircuitError
from scircuit.sae.buffer import ShuffleBuffer
from scircuit.sae.settings import SaeTraining
from scircuit.sae.stack import Stack
from scircuit.sae.topk import TopKSAE
from scircuit.sae.training import train_saes

from .streams import planted, residuals, stream_of

SMALL = SaeTraining(expansion=4, k=4, n_steps=30, batch_rows=64, buffer_rows=512, lr=3e-3, dead_after_rows=256)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_decoder_rows_have_unit_norm_after_every_step(architecture):
    settings = SaeTraining(
        architecture=architecture, expansion=4, k=4, n_steps=12, batch_rows=64, buffer_rows=512, lr=0.05
    )
    data = residuals(1_000)
    buffer = ShuffleBuffer(stream_of(data), (0, 1), 16, buffer_rows=512, batch_rows=64, seed=0)
    stack = Stack(settings, (0, 1), buffer.rows)
    before = stack.parameters["W_dec"].detach().clone()
    for _ in range(settings.n_steps):
        stack.step(buffer.next_batch())
        norms = stack.parameters["W_dec"].detach().norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-6)
    assert not torch.equal(before, stack.parameters["W_dec"])


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_same_seed_same_bits_other_seed_other_weights(architecture):
    stream = stream_of(residuals(1_000))
    settings = SaeTraining(architecture=architecture, k=4, n_steps=20, batch_rows=64, buffer_rows=256, lr=3e-3)
    first = train_saes(stream, 16, [0, 1], settings)
    again = train_saes(stream, 16, [0, 1], settings)
    other = train_saes(stream, 16, [0, 1], SaeTraining(**{**vars(settings), "seed": 1}))
    for layer in (0, 1):
        for name, tensor in first[layer].state_dict().items():
            assert torch.equal(tensor, again[layer].state_dict()[name]), name
        assert not torch.equal(first[layer].W_dec, other[layer].W_dec)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_planted_dictionary_is_recovered(architecture):
    rows, truth = planted(14_000, d=32, n_directions=48, active=3)
    rows, held_out = rows[:12_000], rows[12_000:]
    settings = SaeTraining(
        architecture=architecture, expansion=2, k=3, n_steps=700, batch_rows=256, buffer_rows=12_000, lr=4e-3,
        dead_after_rows=2_000,
    )  # fmt: skip
    sae = train_saes(stream_of({5: rows}, 4_000), 32, [5], settings)[5]
    best = (truth @ sae.W_dec.T).amax(dim=1)
    assert (best > 0.9).float().mean() > 0.8
    unexplained = (held_out - sae(held_out)).square().sum() / (held_out - held_out.mean(dim=0)).square().sum()
    assert unexplained < 0.15
    l0 = float((sae.encode(held_out).values > 0).sum(dim=1).float().mean())
    assert l0 == pytest.approx(3, rel=0.1)
    assert sae.config.layer == 5


def test_topk_training_gives_topk_dictionaries_in_units_of_the_stream():
    data = residuals(2_000)
    scaled = {layer: 100 * rows for layer, rows in data.items()}
    plain = train_saes(stream_of(data), 16, [0, 1], SMALL)
    large = train_saes(stream_of(scaled), 16, [0, 1], SMALL)
    for layer in (0, 1):
        assert isinstance(plain[layer], TopKSAE)
        torch.testing.assert_close(
            100 * plain[layer](data[layer]), large[layer](scaled[layer]), rtol=1e-3, atol=1e-2 * 100
        )


def test_training_on_a_subset_of_the_layers_of_the_stream():
    saes = train_saes(stream_of(residuals(1_000, layers=(0, 1, 2))), 16, [2], SMALL)
    assert list(saes) == [2]


def test_progress_tells_loss_and_dead_share(caplog):
    """Directions of which few are used: latents die, and the log says how many and how well the rest explain."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1_000, 2, generator=generator) @ torch.randn(2, 16, generator=generator)
    settings = replace(SMALL, n_steps=100, aux_coefficient=0.0)
    with caplog.at_level("INFO", logger="scircuit.sae.training"):
        train_saes(stream_of({0: rows}), 16, [0], settings)
    pattern = r"SAEs: step (\d+) of 100, variance unexplained ([\d.]+), L0 ([\d.]+), dead ([\d.]+)%"
    told = [tuple(map(float, re.fullmatch(pattern, message).groups())) for message in caplog.messages]
    assert [step for step, *_ in told] == [20, 40, 60, 80, 100]
    assert told[-1][1] < told[0][1]
    assert all(l0 <= 4 for _, _, l0, _ in told)
    assert all(0 < dead < 100 for *_, dead in told)


def test_bad_streams_are_refused():
    data = residuals(1_000)
    with pytest.raises(ScircuitError, match="lacks layer 7"):
        train_saes(stream_of(data), 16, [0, 7], SMALL)
    with pytest.raises(ScircuitError, match="shape"):
        train_saes(stream_of(data), 8, [0], SMALL)
    with pytest.raises(ScircuitError, match="fewer than one batch"):
        train_saes(stream_of(residuals(10)), 16, [0], SMALL)
    with pytest.raises(ScircuitError, match="each layer once"):
        train_saes(stream_of(data), 16, [0, 0], SMALL)
    data[1][17, 3] = torch.nan
    with pytest.raises(ScircuitError, match="layer 1 hold NaN"):
        train_saes(stream_of(data), 16, [0, 1], SMALL)
    used_up = stream_of(residuals(1_000))(0)
    with pytest.raises(ScircuitError, match="epoch 1 of the activation stream is empty"):
        train_saes(lambda epoch: used_up, 16, [0, 1], SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "gated"}, "choose one of topk"),
        ({"k": 0}, "k = 0 is out of range; it must be at least 1"),
        ({"lr": -1.0}, "lr is -1"),
        ({"warmup_share": 1.5}, "warmup_share"),
        ({"warmup_share": 0.6, "decay_share": 0.6}, "exceed 1"),
        ({"buffer_rows": 8}, "buffer_rows"),
        ({"matryoshka": (0.5, 0.25)}, "rising shares"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ScircuitError, match=message):
        SaeTraining(**change)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize(("freeze", "still"), [("decoder", ("W_dec",)), ("encoder", ("encoder", "b_enc"))])
def test_what_is_frozen_stays_as_drawn_and_the_rest_learns(architecture, freeze, still):
    settings = replace(SMALL, architecture=architecture, freeze=freeze)
    data = residuals(1_000)
    buffer = ShuffleBuffer(stream_of(data), (0, 1), 16, buffer_rows=512, batch_rows=64, seed=0)
    stack = Stack(settings, (0, 1), buffer.rows)
    before = {name: tensor.detach().clone() for name, tensor in stack.parameters.items()}
    for _ in range(settings.n_steps):
        stack.step(buffer.next_batch())
    for name, tensor in stack.parameters.items():
        assert torch.equal(before[name], tensor) == (name in still), name
    other = Stack(settings, (0, 1), buffer.rows)
    other.restore(stack.state())
    assert torch.equal(other.parameters["b_dec"], stack.parameters["b_dec"])


def test_an_unknown_word_for_what_is_frozen_is_refused():
    with pytest.raises(ScircuitError, match="choose one of none, decoder, encoder"):
        replace(SMALL, freeze="both")
