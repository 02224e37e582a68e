"""Arithmetic that the results rest on, done on each device and held to an independent answer.

Top-k has returned wrong indices on Apple GPUs in some versions of PyTorch, and a wrong index is a wrong latent.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from scircuit.health.finding import Finding, fail, ok, tried

if TYPE_CHECKING:
    import torch

_FIX = 'set model.device = "cpu", or install another version of PyTorch'


def check_numerics() -> list[Finding]:
    """Top-k, attention, sums and (off the CPU) a whole model, on every device of this machine."""
    found = []
    for device in tried_devices():
        checks: dict[str, Callable[..., Finding]]
        checks = {"top-k": check_top_k, "attention": check_attention, "sums": check_sums}
        for what, check in checks.items():
            found += tried(f"{what} on {device}", check, device)
        if device.type != "cpu":
            found += tried(f"model on {device}", check_model, device)
    return found


def tried_devices() -> "list[torch.device]":
    """The CPU and every accelerator that PyTorch sees."""
    import torch

    devices = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    return [*devices, torch.device("mps")] if torch.backends.mps.is_available() else devices


def check_top_k(device: "torch.device", top_k: Callable[..., Any] | None = None) -> Finding:
    """The k largest of each row, and where they are, against numpy's sort.

    Rows as wide as dictionaries (2,048 to 18,432), k from 1 to 100, contiguous and not, distinct values (one right
    answer) and ties (the indices must point at the values, each once). `top_k` replaces `torch.topk` in tests.
    """
    import torch

    top_k = top_k or torch.topk
    what, rng = f"top-k on {device}", np.random.default_rng(0)
    n = 0
    for width in (257, 2048, 4608, 18432):
        distinct = np.stack([rng.permutation(width) for _ in range(33)]).astype(np.float32) - width / 2
        ties = np.floor(rng.standard_normal((33, width)) * 3).astype(np.float32)
        for rows in (distinct, ties):
            for x in (torch.from_numpy(rows).to(device), torch.from_numpy(rows.T.copy()).to(device).T):
                for k in (1, 16, 17, 32, 100):
                    values, indices = (t.cpu().numpy() for t in top_k(x, k, dim=1))
                    expected = -np.sort(-rows, axis=1)[:, :k]
                    once = all(len(set(row)) == k for row in indices.tolist())
                    if not (np.array_equal(values, expected) and once):
                        return fail(what, f"wrong values for k = {k} of {width}", _FIX)
                    if not np.array_equal(np.take_along_axis(rows, indices, axis=1), values):
                        return fail(what, f"indices that do not point at the values for k = {k} of {width}", _FIX)
                    n += 1
    return ok(what, f"equals numpy's sort in {n} shapes")


def check_attention(device: "torch.device", attention: Callable[..., Any] | None = None) -> Finding:
    """Scaled dot-product attention with padded keys, against an explicit softmax in float64 with numpy."""
    import torch
    import torch.nn.functional as F

    attend: Callable[..., Any] = attention or F.scaled_dot_product_attention
    what, rng = f"attention on {device}", np.random.default_rng(1)
    worst = 0.0
    for length, d_head in ((7, 32), (129, 64), (300, 64)):
        q, k, v = (rng.standard_normal((2, 3, length, d_head)).astype(np.float32) for _ in range(3))
        keep = np.ones((2, 1, 1, length), dtype=bool)
        keep[1, ..., length // 2 :] = False
        given = [torch.from_numpy(x).to(device) for x in (q, k, v)]
        for mask in (None, keep):
            scores = (q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2)) / math.sqrt(d_head)
            scores = scores if mask is None else np.where(mask, scores, -np.inf)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            expected = weights / weights.sum(axis=-1, keepdims=True) @ v.astype(np.float64)
            on_device = None if mask is None else torch.from_numpy(mask).to(device)
            mine = attend(*given, attn_mask=on_device).cpu().double().numpy()
            worst = max(worst, float(np.abs(mine - expected).max()))
    detail = f"within {worst:.1g} of an explicit softmax"
    return ok(what, detail) if worst < 1e-4 else fail(what, f"off by {worst:.1g} from an explicit softmax", _FIX)


def check_sums(device: "torch.device", add: Callable[..., Any] | None = None) -> Finding:
    """A float64 sum that float32 gets wrong, where the moments of a trace are kept, against `math.fsum`."""
    import torch

    from scircuit.tracing.engines.exact import accumulator

    add = add or torch.sum
    where, dtype = accumulator(device)
    x = np.random.default_rng(2).standard_normal(100_000) + 1e6
    mine, exact = float(add(torch.from_numpy(x).to(where, dtype))), math.fsum(x)
    error = abs(mine - exact) / abs(exact)
    what, kept = f"sums on {device}", "" if where.type == device.type else f", kept on {where}"
    if error > 1e-13:
        return fail(what, f"float64 sums are off by {error:.1g} relative to the exact sum", _FIX)
    return ok(what, f"float64, within {error:.1g} of the exact sum{kept}")


def check_model(device: "torch.device") -> Finding:
    """The last residual of a packaged model on the device, against the same on the CPU."""
    import torch

    from scircuit.cells.batch import Role, TokenBatch
    from scircuit.models.load import load_model
    from scircuit.models.stream import residuals

    states = []
    for place in ("cpu", str(device)):
        model = load_model("geneformer-mini", device=place)
        tokens = model.genes["token"].to_numpy()[: 2 * 64].reshape(2, 64)
        gene = np.arange(2 * 64, dtype=np.int32).reshape(2, 64)
        batch = TokenBatch(tokens, np.full(tokens.shape, Role.GENE, dtype=np.int8), gene, np.arange(2))
        last = model.n_layers - 1
        states.append(residuals(model, batch, [last])[last].cpu().double())
    error = float((states[0] - states[1]).abs().max() / states[0].std())
    what = f"model on {device}"
    if not error < 1e-3 or not torch.isfinite(states[1]).all():
        return fail(what, f"geneformer-mini differs from the CPU by {error:.1g} of a standard deviation", _FIX)
    return ok(what, f"geneformer-mini within {error:.1g} of a standard deviation of the CPU")
