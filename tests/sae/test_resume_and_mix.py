"""Interrupted trainings continue bit for bit; layers share one pass; data sets mix by weight."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from scircuit.errors import ScircuitError
from scircuit.sae import training as sae_training
from scircuit.sae.buffer import Position, ShuffleBuffer
from scircuit.sae.mixing import mix
from scircuit.sae.settings import SaeTraining
from scircuit.sae.training import train_saes

from .streams import residuals, stream_of

BASE = SaeTraining(k=4, n_steps=40, batch_rows=32, buffer_rows=256, lr=3e-3, dead_after_rows=200)


def assert_same(first, second):
    for layer, sae in first.items():
        for name, tensor in sae.state_dict().items():
            assert torch.equal(tensor, second[layer].state_dict()[name]), (layer, name)


def failing_after(n_steps):
    original = sae_training.Stack.step

    def step(self, batch):
        if self.n_done == n_steps:
            raise KeyboardInterrupt
        return original(self, batch)

    return step


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize("n_rows", [200, 700])  # resident in the buffer, and streamed through several blocks
def test_resume_after_any_interruption_is_exact(tmp_path, architecture, n_rows):
    settings = replace(BASE, architecture=architecture)
    stream = stream_of(residuals(n_rows), chunk=45)
    whole = train_saes(stream, 16, [0, 1], settings)
    path = tmp_path / "training.safetensors"
    for crash_after in (1, 9, 13, 26):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sae_training.Stack, "step", failing_after(crash_after))
            with pytest.raises(KeyboardInterrupt):
                train_saes(stream, 16, [0, 1], settings, checkpoint=path, checkpoint_every=3)
    resumed = train_saes(stream, 16, [0, 1], settings, checkpoint=path, checkpoint_every=3)
    assert_same(whole, resumed)
    assert_same(whole, train_saes(stream, 16, [0, 1], settings, checkpoint=path))


def test_no_activation_is_in_the_checkpoint(tmp_path):
    from safetensors.torch import load_file

    path = tmp_path / "training.safetensors"
    train_saes(stream_of(residuals(700)), 16, [0, 1], BASE, checkpoint=path)
    tensors = load_file(path)
    largest = 2 * 64 * 16  # layers x latents x width, the size of a weight
    assert max(tensor.numel() for tensor in tensors.values()) == largest
    assert not any("rows" in name.split("/")[-1] and tensor.is_floating_point() for name, tensor in tensors.items())


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "training.safetensors"
    stream = stream_of(residuals(700))
    train_saes(stream, 16, [0], BASE, checkpoint=path)
    with pytest.raises(ScircuitError, match="another training"):
        train_saes(stream, 16, [0], replace(BASE, k=5), checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ScircuitError, match="no readable training checkpoint"):
        train_saes(stream, 16, [0], BASE, checkpoint=path)


@pytest.mark.parametrize(
    "changes", [{}, {"expansion": 8, "seed": 3}, {"architecture": "batchtopk"}, {"matryoshka": (0.25, 0.5)}]
)
def test_all_layers_share_one_pass_over_each_epoch(changes):
    calls = Counter()
    inner = stream_of(residuals(700))

    def stream(epoch):
        calls[epoch] += 1
        return inner(epoch)

    together = train_saes(stream, 16, [0, 1], replace(BASE, **changes))
    assert set(calls.values()) == {1}
    assert together[0].n_latents == 16 * changes.get("expansion", BASE.expansion)


def test_layers_in_groups_or_alone_give_the_same_dictionaries(monkeypatch):
    stream = stream_of(residuals(700, layers=(0, 1, 2)))
    together = train_saes(stream, 16, [0, 1, 2], BASE)
    monkeypatch.setattr(sae_training, "_GROUP_ELEMENTS", 1)
    grouped = train_saes(stream, 16, [0, 1, 2], BASE)
    for layer, sae in grouped.items():
        torch.testing.assert_close(sae.W_dec, together[layer].W_dec, rtol=0, atol=1e-5)
    assert_same({2: grouped[2]}, train_saes(stream, 16, [2], BASE))


def test_every_row_of_an_epoch_is_drawn_once():
    """Rows carry their number; chunks straddle blocks, and epochs follow each other without a seam."""
    n_rows = 330
    data = {0: torch.arange(n_rows, dtype=torch.float32).unsqueeze(1).expand(-1, 2)}
    buffer = ShuffleBuffer(stream_of(data, 47), (0,), 2, buffer_rows=110, batch_rows=11, seed=0)
    first_epoch = [int(v) for _ in range(30) for v in buffer.next_batch()[0, :, 0]]
    assert sorted(first_epoch) == list(range(n_rows))
    assert first_epoch != sorted(first_epoch)
    assert buffer.rows.shape == (1, 110, 2)
    position = buffer.position
    expected = [buffer.next_batch() for _ in range(35)]
    again = ShuffleBuffer(
        stream_of(data, 47), (0,), 2, buffer_rows=110, batch_rows=11, seed=0, position=Position(*position)
    )
    assert all(torch.equal(batch, again.next_batch()) for batch in expected)


def test_data_that_fit_into_the_buffer_are_streamed_once():
    calls = Counter()
    inner = stream_of(residuals(300))

    def stream(epoch):
        calls[epoch] += 1
        return inner(epoch)

    train_saes(stream, 16, [0], replace(BASE, buffer_rows=1_024))
    assert calls == {0: 1}


def labelled(value: float, n_rows: int, chunk: int):
    def stream(epoch):
        for start in range(0, n_rows, chunk):
            yield {0: torch.full((min(chunk, n_rows - start), 3), value)}

    return stream


def test_mixing_meets_the_weights_and_sees_everything():
    streams = {"k562": labelled(1.0, 900, 30), "lung": labelled(2.0, 100, 20), "kidney": labelled(3.0, 250, 50)}
    weights = {"k562": 2.0, "lung": 1.0, "kidney": 1.0}
    chunks = [chunk[0] for chunk in mix(streams, weights)(0)]
    rows = torch.cat(chunks)[:, 0]
    counts = {value: int((rows == value).sum()) for value in (1.0, 2.0, 3.0)}
    assert counts[1.0] >= 900
    for value, share in ((1.0, 0.5), (2.0, 0.25), (3.0, 0.25)):
        assert abs(counts[value] - share * len(rows)) <= 50
    half = rows[: len(rows) // 2]
    assert abs(float((half == 1.0).float().mean()) - 0.5) < 0.15
    again = [chunk[0] for chunk in mix(streams, weights)(0)]
    assert all(torch.equal(a, b) for a, b in zip(chunks, again, strict=True))


def test_mixing_refuses_bad_weights_and_empty_data():
    with pytest.raises(ScircuitError, match="differ"):
        mix({"a": labelled(1, 10, 5)}, {"b": 1.0})
    with pytest.raises(ScircuitError, match="'a' is 0"):
        mix({"a": labelled(1, 10, 5)}, {"a": 0.0})
    with pytest.raises(ScircuitError, match="'b' has no rows"):
        list(mix({"a": labelled(1, 10, 5), "b": labelled(1, 0, 5)}, {"a": 1.0, "b": 1.0})(0))
