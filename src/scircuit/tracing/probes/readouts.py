"""What else an intervention changes: other positions, pre-activations, the model's output, the cell embedding.

The published response is the activation at the edited positions (`suffix`, `local`). Here the exact engine is read
elsewhere, job by job: slower, and meant for chosen sources.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scircuit.errors import ScircuitError
from scircuit.models.stream import resume
from scircuit.tracing.engines.clean import CleanBatch, Job, touched
from scircuit.tracing.engines.exact import copies
from scircuit.tracing.floor import Floor, in_float64
from scircuit.tracing.setup import Setup

WHERE = ("active", "other", "all")
WHAT = ("activation", "pre_activation", "logits", "embedding")
_ROWS = 256


class Readout(NamedTuple):
    """Change and clean value of what was read, for some jobs.

    `job` int64 `[n]` indexes the jobs; `delta` and `clean` are float64 `[n, value]`, means over the positions read:
    of latents (activation, pre-activation), of vocabulary entries (logits) or of residual dimensions (embedding).
    NaN where a job has no position to read.
    """

    layer: int
    job: np.ndarray
    delta: Tensor
    clean: Tensor


@torch.inference_mode()
def readout(
    setup: Setup,
    clean: CleanBatch,
    jobs: Sequence[Job],
    targets: Sequence[int] = (),
    *,
    where: str = "active",
    what: str = "activation",
) -> Iterator[Readout]:
    """Run each job exactly and read it, chunk by chunk, layer by layer.

    `where` is `active` (the edited positions), `other` (all other gene positions of the cell) or `all`. `what` is
    `activation` (after TopK or threshold) or `pre_activation` of every latent of the `targets`; or of the last layer
    `logits` (the output of the model's masked-token head) or `embedding` (the residual, whose mean over all gene
    positions is the cell embedding).
    """
    model = setup.model
    _check(setup, clean.layer, targets, where, what)
    layers = set(targets) if what in ("activation", "pre_activation") else {model.n_layers - 1}
    for numbers, chunk, clean_row, batch, h in copies(clean, jobs, setup.settings.tokens):
        acts = touched(chunk).tolist()
        for layer, state in resume(model, h, clean.layer, batch, stop=max(layers)):
            if layer in layers:
                read, floor = _reader(setup, layer, what), _floor(setup, layer, what)
                pairs = []
                for n, job in enumerate(chunk):
                    at, own = _positions(clean.positions[job.cell], job.edit.positions, where), clean_row[job.cell]
                    copy = len(clean_row) + n if acts[n] else own
                    pairs.append(_compare(read, floor, state[own, at], state[copy, at]))
                delta, before = (torch.stack(part) for part in zip(*pairs, strict=True))
                yield Readout(layer, np.array(numbers), delta, before)


def _check(setup: Setup, source: int, targets: Sequence[int], where: str, what: str) -> None:
    model = setup.model
    for name, value, allowed in (("where", where, WHERE), ("what", what, WHAT)):
        if value not in allowed:
            raise ScircuitError(f"{name}={value!r} is unknown; it may be {', '.join(allowed)}.")
    if what == "embedding" and where != "all":
        raise ScircuitError(f"The cell embedding is a mean over all gene positions; use where='all', not {where!r}.")
    if what == "logits" and not hasattr(model, "logits"):
        raise ScircuitError(f"{model.name} shows no masked-token head; read activations or the embedding.")
    wrong = [t for t in targets if t not in setup.saes or not source < t < model.n_layers]
    if what in ("activation", "pre_activation") and (wrong or not targets):
        which = f"layer {wrong[0]} is none" if wrong else "none was given"
        raise ScircuitError(f"Target layers lie above source layer {source} and have a dictionary; {which}.")
    if source >= model.n_layers - 1:
        raise ScircuitError(f"Nothing lies above source layer {source}; choose an earlier one.")


def _positions(genes: Tensor, edited: Tensor, where: str) -> Tensor:
    if where == "active":
        return edited
    return genes if where == "all" else genes[~torch.isin(genes, edited)]


def _reader(setup: Setup, layer: int, what: str) -> Callable[[Tensor], Tensor]:
    """Residual rows `[row, d_model]` to what is read of each, `[row, value]`."""
    if what == "embedding":
        return lambda h: h
    if what == "logits":
        return setup.model.logits  # type: ignore[attr-defined]
    sae = setup.saes[layer]
    if what == "pre_activation":
        return sae.pre_activations
    return lambda h: sae.encode(h).dense(sae.n_latents)


def _floor(setup: Setup, layer: int, what: str) -> Floor | None:
    """The numerical floor of what is read; None for logits, whose head may be anything."""
    if what == "logits":
        return None
    model = setup.model
    return (
        Floor.of_residual(model.dtype, model.device)
        if what == "embedding"
        else Floor.of(setup.saes[layer], model.dtype)
    )


def _compare(
    read: Callable[[Tensor], Tensor], floor: Floor | None, before: Tensor, after: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean change and mean clean value over rows; rows that are bit for bit the same change nothing."""
    changed = (before != after).any(dim=1)
    n = len(before) or float("nan")
    clean = _sum(read, before) / n
    if not bool(changed.any()):
        return clean * 0.0, clean
    delta = (_sum(read, after[changed]) - _sum(read, before[changed])) / n
    return delta if floor is None else floor.apply(delta[None], before)[0], clean


def _sum(read: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    parts = [in_float64(read(part)).sum(dim=0) for part in rows.split(_ROWS)]
    return torch.stack(parts).sum(dim=0)
