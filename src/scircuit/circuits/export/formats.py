"""A finished run in the formats of other tools. No torch."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from scircuit._discover import discover
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.export.format import Format
from scircuit.errors import ScircuitError


@cache
def formats() -> Mapping[str, Format]:
    """All that the modules of this room offer, by name."""
    return discover("scircuit.circuits.export", Format)


def export(
    run: str | Path | Artefacts,
    fmt: str,
    out: str | Path | None = None,
    max_edges: int | None = None,
    grade: str | None = None,
) -> Path:
    """Write the circuit of a run for another tool, by a key of `formats()`; returns the file.

    `out` is a file (neuronpedia: a folder), by default under `RUN/export/`. `max_edges` keeps those of largest |d|; by
    default all, but 5,000 for neuronpedia, whose viewer loads no more. Edges are those of `grade` or a stricter one.
    """
    run = Artefacts.of(run)
    if fmt not in formats():
        raise ScircuitError(f"There is no export format {fmt!r}; choose one of {', '.join(formats())}.")
    chosen, circuit = formats()[fmt], run.circuit(grade=grade)
    path = run.root / "export" / chosen.place if out is None else Path(out)
    if not chosen.genes:
        return chosen.write(circuit, path, max_edges) or path
    table = run.table("genes") if run.has("genes") else None
    return chosen.write(circuit, path, max_edges, genes=table) or path
