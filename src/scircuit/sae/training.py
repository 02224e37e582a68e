"""Dictionaries of all layers trained in one pass over a stream of activations; nothing is stored on disk.

All layers are trained in step, on one buffer of shuffled rows. A checkpoint holds parameters, optimiser and the
position in the stream, never an activation: on resuming, the stream is run again from the start of its epoch up to the
rows that were in the buffer.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scircuit._io import atomic
from scircuit._progress import progress
from scircuit._settings import values_of
from scircuit.errors import ScircuitError
from scircuit.sae.base import LinearSAE
from scircuit.sae.buffer import Position, ShuffleBuffer, Stream
from scircuit.sae.settings import SaeTraining
from scircuit.sae.stack import Stack, StepReport

logger = logging.getLogger(__name__)

_GROUP_ELEMENTS = 1 << 28
"""Pre-activations of one stack and batch; 1 GB in float32. More layers than fit are trained as several stacks."""


def train_saes(
    stream: Stream,
    d_in: int,
    layers: Sequence[int],
    config: SaeTraining | None = None,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
) -> dict[int, LinearSAE]:
    """Train one dictionary per layer on the activations of `stream`.

    Parameters
    ----------
    stream
        `stream(epoch)` yields `{layer: [row, d_in]}`, the same rows at every layer. It must give the same chunks
        whenever it is called with the same epoch, and should bring its cells in random order.
    layers
        All or some of those in the stream, whose residuals are `d_in` wide.
    checkpoint
        File to resume from if it exists, and to write every `checkpoint_every` steps and at the end. A resumed
        training gives the same dictionaries, bit for bit, as one that was never interrupted.

    Returns
    -------
    layer -> dictionary, in the units of the stream. The mean that is subtracted before encoding, and the scale
    used in training, are those of the first block of `buffer_rows` rows.

    Raises
    ------
    ScircuitError
        If the stream lacks a layer, has another width, holds NaN, or gives less than one batch; if the checkpoint
        belongs to another training.
    """
    if not layers or len(set(layers)) != len(layers):
        raise ScircuitError(f"SAE training: layers are {list(layers)}; name each layer once, and at least one.")
    config = config or SaeTraining()
    identity = _identity(d_in, layers, config)
    saved = _Saved.read(Path(checkpoint), identity) if checkpoint else None
    buffer = ShuffleBuffer(
        stream,
        layers,
        d_in,
        buffer_rows=config.buffer_rows,
        batch_rows=config.batch_rows,
        seed=config.order_seed,
        device=device,
        position=saved.position if saved else None,
    )
    groups = list(_groups(config, layers, buffer.rows))
    if saved:
        for group in groups:
            group.stack.restore(saved.of(group))
        saved = None
    n_done = groups[0].stack.n_done
    with progress(total=config.n_steps, initial=n_done, desc="SAEs", unit="step") as bar:
        while n_done < config.n_steps:
            batch = buffer.next_batch()
            reports = [group.stack.step(batch[group.start : group.end]) for group in groups]
            n_done += 1
            bar.update(1)
            if n_done % max(1, config.n_steps // 50) == 0:
                bar.set_postfix_str(_describe(reports))
            if bar.disable and n_done % max(1, config.n_steps // 5) == 0:
                logger.info("SAEs: step %d of %d, %s", n_done, config.n_steps, _describe(reports))
            if checkpoint and (n_done % checkpoint_every == 0 or n_done == config.n_steps):
                _Saved.write(Path(checkpoint), identity, buffer.position, groups)
    return {layer: sae for group in groups for layer, sae in group.stack.export().items()}


class _Group(NamedTuple):
    """The layers `start` to `end` (in the order asked for) as one stack."""

    start: int
    end: int
    stack: Stack

    @property
    def prefix(self) -> str:
        return f"sae/{self.start}/"


def _groups(config: SaeTraining, layers: Sequence[int], rows: Tensor) -> Iterator[_Group]:
    """Layers in groups whose pre-activations fit in memory together."""
    size = max(1, _GROUP_ELEMENTS // (config.batch_rows * config.n_latents(rows.shape[2])))
    for start in range(0, len(layers), size):
        end = min(start + size, len(layers))
        yield _Group(start, end, Stack(config, layers[start:end], rows[start:end]))


def _describe(reports: Sequence[StepReport]) -> str:
    unexplained, l0, dead = (float(torch.cat(parts).mean()) for parts in zip(*reports, strict=True))
    return f"variance unexplained {unexplained:.3f}, L0 {l0:.1f}, dead {dead:.1%}"


def _identity(d_in: int, layers: Sequence[int], config: SaeTraining) -> dict[str, Any]:
    settings = {"sae": json.loads(json.dumps(values_of(config, SaeTraining)))}
    return {"d_in": d_in, "layers": list(layers), "settings": settings}


class _Saved(NamedTuple):
    """A training checkpoint: one safetensors file, replaced whole."""

    position: Position
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path, identity: dict[str, Any]) -> "_Saved | None":
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("scircuit", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ScircuitError(
                f"{path} is no readable training checkpoint ({error}); delete it to start anew."
            ) from None
        if header.get("identity") != identity:
            raise ScircuitError(
                f"{path} is the checkpoint of another training (other settings, layers or width); "
                "name another file, or delete it to start anew."
            )
        return cls(Position(*header["position"]), tensors)

    def of(self, group: _Group) -> dict[str, Tensor]:
        """The state of one group."""
        prefix = group.prefix
        return {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}

    @staticmethod
    def write(path: Path, identity: dict[str, Any], position: Position, groups: Sequence[_Group]) -> None:
        tensors = {
            group.prefix + key: tensor.contiguous() for group in groups for key, tensor in group.stack.state().items()
        }
        header = json.dumps({"identity": identity, "position": list(position)})
        with atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"scircuit": header})
