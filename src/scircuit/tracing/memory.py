"""Memory of a trace: how much each part of it takes, batches sized to a budget, halved where it did not suffice."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.draws import n_decoys
from scircuit.tracing.parts import most_at_once
from scircuit.tracing.settings import CONTEXT_LADDER
from scircuit.tracing.setup import Setup

log = logging.getLogger(__name__)
T = TypeVar("T")

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_LEAST_TOKENS, _LEAST_SCORES = 16, 1 << 12
MOMENT_BYTES = 40
"""Two int32 and four float64 per (intervention, latent)."""
_RESPONSE_BYTES = 32
"""Change, clean value, square and comparison per (job, latent) of a chunk, float64."""


def parse_memory(text: str) -> int:
    """Bytes of `8GB`, `512 MiB` or `1.5e9`."""
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][0-9]+)?)\s*([A-Za-z]*)\s*", text)
    try:
        amount = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    except (KeyError, ValueError):
        amount = 0.0
    if amount < 1:
        raise ScircuitError(f"memory={text!r} is no amount of memory; write for example '8GB' or '512MiB'.")
    return int(amount)


@dataclass
class BatchSize:
    """How much is computed at once; shrinks when memory is short and stays small.

    `tokens` bounds the positions that the exact engine propagates together, `score_bytes` the attention scores
    that the local engine holds.
    """

    tokens: int
    score_bytes: int

    def halving(self, setup: Setup, compute: Callable[[Setup], T]) -> T:
        """`compute` of the setup at this size; again with half of it for as long as memory runs out."""
        while True:
            try:
                return compute(setup.with_settings(tokens=self.tokens, score_bytes=self.score_bytes))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.tokens <= _LEAST_TOKENS and self.score_bytes <= _LEAST_SCORES:
                    raise ScircuitError(
                        "Memory runs out even one sequence at a time; lower sources_per_block or use a larger device."
                    ) from error
            # Outside the handler: the error's traceback holds on to the tensors that filled the memory.
            self.tokens = max(self.tokens // 2, _LEAST_TOKENS)
            self.score_bytes = max(self.score_bytes // 2, _LEAST_SCORES)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning("out of memory: going on with at most %d positions at once", self.tokens)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on any device, or Python ran out of memory."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device at the peak of a trace: what is there throughout, and what the settings decide."""

    weights: int
    """Model and dictionaries."""
    moments: int
    """Sums of one block of sources at all target layers, those read back while they are summed included."""
    batch: int
    """One batch: residuals, attention, MLP, pre-activations, responses."""

    @property
    def peak(self) -> int:
        """All of it."""
        return self.weights + self.moments + self.batch


def plan_memory(setup: Setup) -> MemoryPlan:
    """What a trace takes."""
    model, settings, length = setup.model, setup.settings, int(setup.cells.lengths.max())
    d, item = model.d_model, torch.finfo(model.dtype).bits // 8
    widest = max(sae.n_latents for sae in setup.saes.values())
    rows = min(_n_rows(setup), most_at_once(settings.sources_per_block))
    n_targets = max(map(len, setup.targets.values()))
    moments = 3 * rows * n_targets * widest * MOMENT_BYTES
    d_mlp, n_heads = 4 * d, 1
    if isinstance(model, BlockStack):
        d_mlp, n_heads = model.block(0).up.out_features, model.block(0).n_heads
    # Residual before and after, queries, keys, values, context, output, and the MLP on both sides of its activation.
    per_position = (8 * d + 2 * d_mlp) * item
    clean = settings.cells_at_once(length) * length * per_position
    if setup.engine == "exact":
        sequences = max(2, settings.tokens // length)
        batch = sequences * length * per_position + sequences * widest * _RESPONSE_BYTES
    else:
        chunk = max(1, settings.score_bytes // (4 * n_heads * length))
        # Scores, weights and the product that is overwritten; all rows of all chunks of a cell are kept between layers.
        batch = 3 * settings.score_bytes + chunk * (per_position + widest * _RESPONSE_BYTES)
        # An eighth of the positions fires, and context rows come on top: as many as the fidelity check may ask for.
        context = CONTEXT_LADDER[-1] if settings.context_rows is None else settings.context_rows
        batch += int(rows * min(length, length / 8 * (1 + context))) * d * item
    # Pre-activations of one chunk of rows in `LinearSAE.encode`, and their sorted copy.
    encoded = 2 * max(1 << 24, widest) * 4
    return MemoryPlan(model_bytes(model) + dictionary_bytes(setup.saes), moments, clean + batch + encoded)


def _n_rows(setup: Setup) -> int:
    """Interventions of the largest source layer, counted before any of them is made."""
    s = setup.settings
    return max(
        len(features)
        + n_decoys(features, setup.saes[layer].n_latents, s.n_random, s.seed)
        + len(setup.extra.get(layer, ()))
        for layer, features in setup.sources.items()
    )


def model_bytes(model: FoundationModel) -> int:
    """Weights of a model."""
    modules = [m for m in (model, getattr(model, "module", None)) if isinstance(m, torch.nn.Module)]
    return sum(t.numel() * t.element_size() for m in modules for t in m.parameters())


def dictionary_bytes(saes: Mapping[int, SparseAutoencoder]) -> int:
    """Weights of dictionaries."""
    names = ("W_enc", "b_enc", "W_dec", "b_dec")  # of another library's object, perhaps W_dec alone
    tensors = [getattr(sae, name) for sae in saes.values() for name in names if hasattr(sae, name)]
    return sum(t.numel() * t.element_size() for t in tensors)


def fit(setup: Setup) -> Setup:
    """The setup with `sources_per_block`, `tokens` and `score_bytes` as large as `settings.memory` allows.

    Half of what the weights leave goes to the sums of a block of sources, the rest to the batch. Without a
    budget the settings stay as they are.
    """
    settings, length = setup.settings, int(setup.cells.lengths.max())
    if settings.memory is None:
        return setup
    budget = parse_memory(settings.memory)
    least = setup.with_settings(sources_per_block=1, tokens=length, score_bytes=_LEAST_SCORES)
    peak = plan_memory(least).peak
    if peak > budget:
        raise ScircuitError(
            f"memory={settings.memory!r} is too little: weights, sums of one source and one sequence of {length} take "
            f"{peak / 1e9:.3g} GB."
        )

    def largest(limit: int, budget: float, **unit: int) -> Setup:
        """The setting named as large as the budget allows, in multiples of its unit."""
        ((name, step),) = unit.items()
        n = _largest(limit, lambda n: plan_memory(least.with_settings(**{name: n * step})).peak <= budget)
        return least.with_settings(**{name: n * step})

    least = largest(_n_rows(setup), peak + (budget - peak) / 2, sources_per_block=1)
    if setup.engine == "exact":
        return largest(1 << 20, budget, tokens=length)
    least = least.with_settings(tokens=min(settings.tokens, 8 * length))
    return largest(1 << 20, budget, score_bytes=_LEAST_SCORES)


def _largest(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest n in 1 .. limit that fits, by bisection; 1 where none does."""
    low, high = 1, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
