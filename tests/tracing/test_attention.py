"""Attention in two parts against one plain softmax over every row's edited keys."""

import math

import pytest
import torch

from scircuit.tracing.engines import attention


def problem(sizes, length=12, heads=3, width=8, scale=1.0, dtype=torch.float32):
    """Jobs of `sizes` rows each at random positions; queries grow with `scale`, so that weights become extreme."""
    g = torch.Generator().manual_seed(sum(sizes) + length)
    position = [torch.randperm(length, generator=g)[:n].sort().values for n in sizes]
    n = sum(sizes)
    q, k_own, v_own = (torch.randn(heads, n, width, generator=g, dtype=dtype) for _ in range(3))
    k, v = (torch.randn(heads, length, width, generator=g, dtype=dtype) for _ in range(2))
    start = [sum(sizes[:i]) for i in range(len(sizes))]
    table = torch.zeros(len(sizes), max(sizes), dtype=torch.int64)
    valid = torch.zeros(len(sizes), max(sizes), dtype=torch.bool)
    pairs = []
    for job, (first, at) in enumerate(zip(start, position, strict=True)):
        table[job, : len(at)] = first + torch.arange(len(at))
        valid[job, : len(at)] = True
        pairs += [(first + row) * length + column for row in range(len(at)) for column in at.tolist()]
    return q * scale, k, v, k_own, v_own, torch.tensor(pairs), table, valid, position, start


def oracle(q, k, v, k_own, v_own, position, start):
    """Row by row: the clean keys with the job's own columns overwritten, one softmax in float64."""
    out = torch.empty_like(q, dtype=torch.float64)
    for first, at in zip(start, position, strict=True):
        rows = slice(first, first + len(at))
        keys, values = k.double().clone(), v.double().clone()
        keys[:, at], values[:, at] = k_own[:, rows].double(), v_own[:, rows].double()
        scores = q[:, rows].double() @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
        out[:, rows] = scores.softmax(dim=-1) @ values
    return out


@pytest.mark.parametrize("kernel", ["_flash", "_plain"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("sizes", [(1,), (1, 3, 5), (12, 2), (12,)])
def test_two_parts_are_one_softmax(monkeypatch, kernel, scale, sizes):
    monkeypatch.setattr(attention, "_flash", getattr(attention, kernel))
    *given, position, start = problem(sizes, scale=scale)
    got = attention.attend(*given)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), oracle(*given[:5], position, start), atol=3e-6, rtol=1e-5)


def test_no_own_column_is_left_out_or_counted_twice():
    *given, _, _ = problem((4, 2))
    q, k, v, k_own, v_own, own, table, valid = given
    ones = attention.attend(q, k, torch.ones_like(v), k_own, torch.ones_like(v_own), own, table, valid)
    torch.testing.assert_close(ones, torch.ones_like(ones))


def test_reduced_precision_stays_reduced():
    *given, position, start = problem((3, 3), dtype=torch.bfloat16)
    got = attention.attend(*given)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), oracle(*given[:5], position, start), atol=0.03, rtol=0.03)
