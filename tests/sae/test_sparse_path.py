"""The fast path of TopK training against autograd on the dense statement of the same loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scircuit.sae.settings import SaeTraining
from scircuit.sae.stack import Stack, batch_top_k, jump_relu, step_function, top_k


def stack_of(seed: int, n_layers: int, d: int, k: int, **options) -> tuple[Stack, torch.Tensor]:
    rows = torch.randn(n_layers, 200, d, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    config = SaeTraining(k=k, expansion=3, seed=seed, n_steps=50, batch_rows=64, buffer_rows=200, **options)
    return Stack(config, range(n_layers), rows), rows


@given(seed=st.integers(0, 100), n_layers=st.integers(1, 3), k=st.integers(1, 12), n_rows=st.integers(1, 64))
def test_gradients_and_firings_equal_autograd(seed, n_layers, k, n_rows):
    stack, rows = stack_of(seed, n_layers, 6, k)
    stack.parameters["b_enc"].data.normal_(generator=torch.Generator().manual_seed(seed))
    x = (rows[:, :n_rows] - stack.mean) / stack.scale
    error, n_fired = stack._sparse_pass(x)
    fast = {name: parameter.grad.clone() for name, parameter in stack.parameters.items()}
    stack.optimiser.zero_grad()
    dense_error, dense_fired = stack._dense_pass(x)
    torch.testing.assert_close(error, dense_error, rtol=1e-5, atol=1e-5)
    assert torch.equal(n_fired, dense_fired)
    for name, parameter in stack.parameters.items():
        torch.testing.assert_close(fast[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_both_paths_train_to_the_same_dictionary_with_dead_latents():
    fast, rows = stack_of(0, 2, 6, 3, dead_after_rows=64)
    slow, _ = stack_of(0, 2, 6, 3, dead_after_rows=64)
    slow.sparse = False
    assert fast.sparse
    for stack in (fast, slow):
        stack.parameters["b_enc"].data[0, 0, :4] = -4
    n_dead = 0.0
    for i in range(20):
        batch = rows[:, (i % 3) * 64 : (i % 3) * 64 + 64]
        report = fast.step(batch)
        torch.testing.assert_close(report.unexplained, slow.step(batch).unexplained, rtol=1e-3, atol=1e-3)
        n_dead += float(report.dead.sum())
    assert n_dead > 0
    # Adam turns rounding in gradients near 0 into whole steps, so single weights may part; the mean does not.
    assert (fast.parameters["W_dec"] - slow.parameters["W_dec"]).detach().abs().mean() < 1e-3


def test_dead_latents_receive_gradients_only_from_auxk():
    stack, rows = stack_of(0, 1, 6, 2)
    stack.parameters["b_enc"].data[0, 0, :5] = -1e3
    stack.rows_since_fired[0, :5] = 10**9
    before = stack.parameters["W_dec"].detach().clone()
    without, _ = stack_of(0, 1, 6, 2, aux_coefficient=0.0)
    without.parameters["b_enc"].data[0, 0, :5] = -1e3
    without.rows_since_fired[0, :5] = 10**9
    without.step(rows[:, :64])
    torch.testing.assert_close(without.parameters["W_dec"][0, :5].detach(), before[0, :5], rtol=0, atol=1e-6)
    stack.parameters["b_enc"].data[0, 0, :5] = -1.0
    stack.step(rows[:, :64])
    assert (stack.parameters["W_dec"][0, :5] - before[0, :5]).abs().amin(dim=1).max() > 1e-5


def test_parallel_gradient_is_removed():
    """Adam moves along the gradient's sign; what matters is what Adam is given."""
    stack, rows = stack_of(1, 2, 6, 3)
    seen = {}

    def spy(optimiser, *_):
        W_dec = stack.parameters["W_dec"]
        seen["along"] = (W_dec.grad * W_dec.detach()).sum(dim=-1)
        seen["size"] = W_dec.grad.norm(dim=-1)

    stack.optimiser.register_step_pre_hook(spy)
    stack.step(rows[:, :64])
    assert seen["size"].max() > 1e-4
    torch.testing.assert_close(seen["along"], torch.zeros_like(seen["along"]), rtol=0, atol=1e-7)


def test_selections_equal_loops():
    pre = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0))
    for layer in range(2):
        flat = sorted((float(v) for v in pre[layer].flatten()), reverse=True)
        kept = batch_top_k(pre, 3)[layer]
        assert sorted(kept[kept > 0].tolist(), reverse=True) == pytest.approx([v for v in flat[:15] if v > 0])
        for row in range(5):
            largest = sorted(pre[layer, row].tolist(), reverse=True)[:3]
            kept_row = top_k(pre, 3)[layer, row]
            assert sorted(kept_row[kept_row > 0].tolist(), reverse=True) == pytest.approx(
                [value for value in largest if value > 0]
            )


def test_jumprelu_gradients_are_those_of_the_paper():
    pre = torch.tensor([[[0.50, 0.96, 1.04, 2.0]]], requires_grad=True)
    threshold = torch.ones(1, 1, 4, requires_grad=True)
    z = jump_relu(pre, threshold, bandwidth=0.2)
    assert z.flatten().tolist() == pytest.approx([0, 0, 1.04, 2.0])
    z.sum().backward()
    assert pre.grad.flatten().tolist() == [0, 0, 1, 1]
    # -pre / bandwidth inside the window (the paper's -threshold / bandwidth, to first order), 0 outside.
    assert threshold.grad.flatten().tolist() == pytest.approx([0, -0.96 / 0.2, -1.04 / 0.2, 0])
    threshold.grad = None
    step_function(pre, threshold, bandwidth=0.2).sum().backward()
    assert threshold.grad.flatten().tolist() == pytest.approx([0, -5, -5, 0])


def test_matryoshka_prefixes_reconstruct_on_their_own():
    """The loss is the mean over prefixes of the squared error of each; and the prefix learns to stand alone."""
    stack, rows = stack_of(2, 1, 6, 3, matryoshka=(1 / 3,))
    x = (rows[:, :64] - stack.mean) / stack.scale
    z = top_k(stack._pre_activations(x, slice(None)), 3)
    error, loss = stack._reconstruct(x, z)
    W_dec = stack.parameters["W_dec"]
    prefix = x - z[..., :6] @ W_dec[:, :6]
    whole = x - z @ W_dec
    torch.testing.assert_close(loss, (prefix.square().mean() + whole.square().mean()) / 2)
    torch.testing.assert_close(error, whole)
    plain, _ = stack_of(2, 1, 6, 3)
    for i in range(50):
        batch = rows[:, (i % 3) * 64 : (i % 3) * 64 + 64]
        stack.step(batch)
        plain.step(batch)

    @torch.no_grad()
    def prefix_error(stack):
        z = top_k(stack._pre_activations(x, slice(None)), 3)
        return float((x - z[..., :6] @ stack.parameters["W_dec"][:, :6]).square().mean())

    assert prefix_error(stack) < prefix_error(plain)


def test_bfloat16_trains_close_to_float32():
    half, rows = stack_of(0, 2, 6, 3, bf16=True)
    full, _ = stack_of(0, 2, 6, 3)
    for i in range(20):
        batch = rows[:, (i % 3) * 64 : (i % 3) * 64 + 64]
        unexplained = half.step(batch).unexplained
        torch.testing.assert_close(unexplained, full.step(batch).unexplained, rtol=0.1, atol=0.02)
    assert half.parameters["W_dec"].dtype == torch.float32
