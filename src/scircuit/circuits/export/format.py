"""`Format`: a file of another tool that a circuit is written to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Format:
    """An export format; a module of this room that holds one offers it."""

    name: str
    """That of `scircuit export --format`."""
    says: str
    """Which tools read it."""
    place: str
    """File, or folder, below `RUN/export/` that it is written to by default."""
    write: Callable[..., Path | None]
    """`(circuit, path, max_edges) -> None`, or the file where `path` is a folder; `max_edges` is None for all edges."""
    genes: bool = False
    """Whether it also takes the loadings of the latents' genes (`features/genes.parquet`, keyword `genes`), or None
    where a run has none."""
