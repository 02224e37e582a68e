"""Several data sets as one stream, in given proportions."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from scircuit.errors import ScircuitError
from scircuit.sae.buffer import Stream

_REPEATS = 1 << 20
"""Passes over one data set within an epoch of the mixture, kept apart in the epoch number given to its stream."""


def mix(streams: Mapping[str, Stream], weights: Mapping[str, float]) -> Stream:
    """A stream whose rows come from each data set in proportion to its weight.

    The next chunk is always that of the data set furthest behind its share of the rows so far, so shares are met
    to within one chunk at any time, and the order depends on nothing but the streams. A data set that ends while
    others are not through starts again (its stream is called with `epoch * 2**20 + repeat`); an epoch ends when
    every data set has been seen whole at least once.
    """
    if streams.keys() != weights.keys() or not streams:
        raise ScircuitError(
            f"data sets {sorted(streams)} and weights {sorted(weights)} differ; give each data set one weight."
        )
    for name, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise ScircuitError(f"the weight of data set {name!r} is {weight}; it must be positive.")

    def mixed(epoch: int) -> Iterator[Mapping[int, Tensor]]:
        repeats = dict.fromkeys(streams, 0)
        chunks = {name: iter(stream(epoch * _REPEATS)) for name, stream in streams.items()}
        rows = dict.fromkeys(streams, 0)
        rows_before = dict.fromkeys(streams, -1)
        unseen = set(streams)
        while unseen:
            name = min(streams, key=lambda name: rows[name] / weights[name])
            chunk = next(chunks[name], None)
            if chunk is None:
                unseen.discard(name)
                if rows[name] == rows_before[name] or rows[name] == 0:
                    raise ScircuitError(f"data set {name!r} has no rows; leave it out or check its cells.")
                rows_before[name] = rows[name]
                repeats[name] += 1
                chunks[name] = iter(streams[name](epoch * _REPEATS + repeats[name]))
                continue
            rows[name] += _n_rows(chunk)
            yield chunk

    return mixed


def _n_rows(chunk: Mapping[int, Tensor]) -> int:
    """Rows of a chunk; one that says so itself is not computed for it."""
    known = getattr(chunk, "n_rows", None)
    return len(next(iter(chunk.values()))) if known is None else known
