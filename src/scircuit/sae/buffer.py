"""Shuffled batches of rows from a stream of activations, in bounded memory and without a file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scircuit._progress import progress
from scircuit.errors import ScircuitError

Stream = Callable[[int], Iterator[Mapping[int, Tensor]]]
"""`stream(epoch)` yields chunks: layer -> `[row, d_in]`, the same rows at every layer. Deterministic in epoch."""


class Position(NamedTuple):
    """Where the current block began in the stream, and how far it is used up; enough to come back to it."""

    block: int = 0
    epoch: int = 0
    chunk: int = 0
    row: int = 0
    batch: int = 0


class ShuffleBuffer:
    """Blocks of `buffer_rows` rows, each handed out in random order, batch by batch.

    Rows are shuffled within a block, so the stream itself should bring its cells in random order. When the whole
    first epoch fits into the buffer, it stays there and is shuffled anew for every later epoch, and the stream
    (that is, the model) is never run again. Memory: `n_layers x buffer_rows x d_in` numbers.

    The order depends on the seed and the number of the block alone. `position` is all that a resume needs:
    the block is refilled by running the stream again, so no activation is ever written to disk.
    """

    def __init__(
        self,
        stream: Stream,
        layers: Sequence[int],
        d_in: int,
        *,
        buffer_rows: int,
        batch_rows: int,
        seed: int,
        device: torch.device | str = "cpu",
        position: Position | None = None,
    ) -> None:
        self.stream, self.layers, self.d_in = stream, tuple(layers), d_in
        self.batch_rows, self.seed = batch_rows, seed
        self.capacity = max(1, buffer_rows // batch_rows) * batch_rows
        self.resident = False
        self._rows = torch.empty(len(self.layers), self.capacity, d_in, device=device)
        position = position or Position()
        self._epoch, self._chunk, self._row = position.epoch, position.chunk, position.row
        self._chunks: Iterator[Mapping[int, Tensor]] | None = None
        self._rest: list[Tensor] | None = None
        self._batch = position.batch
        self._start_block(position.block)

    @property
    def rows(self) -> Tensor:
        """The current block, `[layer, row, d_in]`, in the order of the stream."""
        return self._rows[:, : self._n_rows]

    @property
    def position(self) -> Position:
        """State after the batches handed out so far."""
        return Position(self._block, *self._start, self._batch)

    def next_batch(self) -> Tensor:
        """`[layer, batch_rows, d_in]`, rows drawn without replacement within a block."""
        if (self._batch + 1) * self.batch_rows > self._n_rows:
            self._batch = 0
            self._start_block(self._block + 1)
        chosen = self._order[self._batch * self.batch_rows : (self._batch + 1) * self.batch_rows]
        self._batch += 1
        return self._rows[:, chosen]

    def _start_block(self, block: int) -> None:
        self._block = block
        if not self.resident:
            self._start = (self._epoch, self._chunk, self._row)
            with progress(total=self.capacity, desc="activations", unit="row", unit_scale=True, leave=False) as bar:
                self._fill(bar)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + block)
        self._order = torch.randperm(self._n_rows, generator=generator).to(self._rows.device)

    def _fill(self, bar: Any) -> None:
        filled = 0
        while filled < self.capacity:
            if self._rest is None and not self._next_chunk():
                if self._start == (0, 0, 0) and self._epoch == 1:
                    self.resident = True
                    break
                continue
            assert self._rest is not None
            taken = min(self.capacity - filled, len(self._rest[0]))
            for into, rows in zip(self._rows, self._rest, strict=True):
                into[filled : filled + taken] = rows[:taken]
            filled, self._row = filled + taken, self._row + taken
            bar.update(taken)
            rest = [rows[taken:] for rows in self._rest]
            if len(rest[0]):
                self._rest = rest
            else:
                self._rest, self._chunk, self._row = None, self._chunk + 1, 0
        self._n_rows = filled
        if filled < self.batch_rows:
            raise ScircuitError(
                f"the activation stream gives {filled} rows, fewer than one batch of {self.batch_rows}; "
                "pass more cells or a smaller batch_rows."
            )

    def _next_chunk(self) -> bool:
        """Load the chunk at (`_epoch`, `_chunk`), less the `_row` rows already used; False at an epoch's end."""
        if self._chunks is None:
            self._chunks = iter(self.stream(self._epoch))
            for _ in range(self._chunk):
                next(self._chunks, None)
        chunk = next(self._chunks, None)
        if chunk is None:
            if self._epoch > 0 and self._chunk == 0:
                raise ScircuitError(
                    f"epoch {self._epoch} of the activation stream is empty; stream(epoch) must give the data anew "
                    "each time it is called."
                )
            self._chunks, self._epoch, self._chunk, self._row = None, self._epoch + 1, 0, 0
            return False
        self._rest = [rows[self._row :] for rows in self._checked(chunk)]
        if not len(self._rest[0]):
            self._rest, self._chunk, self._row = None, self._chunk + 1, 0
            return self._next_chunk()
        return True

    def _checked(self, chunk: Mapping[int, Tensor]) -> list[Tensor]:
        missing = [layer for layer in self.layers if layer not in chunk]
        if missing:
            raise ScircuitError(
                f"the activation stream lacks layer {missing[0]}; it gives layers {sorted(chunk)}, "
                "train on a subset of these."
            )
        rows = [chunk[layer] for layer in self.layers]
        for layer, tensor in zip(self.layers, rows, strict=True):
            if tensor.ndim != 2 or tensor.shape[1] != self.d_in or len(tensor) != len(rows[0]):
                raise ScircuitError(
                    f"activations of layer {layer} have shape {tuple(tensor.shape)}; every layer must give "
                    f"[{len(rows[0])}, {self.d_in}], the same rows as layer {self.layers[0]}."
                )
            if not bool(torch.isfinite(tensor).all()):
                raise ScircuitError(
                    f"activations of layer {layer} hold NaN or infinity; check the model's weights and precision."
                )
        return rows
