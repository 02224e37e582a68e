"""A finished run in the formats of other tools. No torch."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from scircuit._discover import discover
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.export.format import Format
from scircuit.errors import ScircuitError


@cache
def formats() -> Mapping[str, Format]:
    """All that the modules of this room offer, by name."""
    return discover("scircuit.circuits.export", Format)


def export(run: str | Path, fmt: str, out: str | Path | None = None, max_edges: int | None = None) -> Path:
    """Write the circuit of a run folder for another tool; returns the file.

    Parameters
    ----------
    run : folder
    fmt : str
        A key of `formats()`.
    out : path, optional
        File (neuronpedia: folder); by default under `RUN/export/`.
    max_edges : int, optional
        Only the edges of largest |d|; by default all, but 5,000 for neuronpedia, whose viewer loads no more.

    Raises
    ------
    ScircuitError
        On an unknown format or a folder without a circuit.
    """
    run = Path(run)
    if fmt not in formats():
        raise ScircuitError(f"There is no export format {fmt!r}; choose one of {', '.join(formats())}.")
    chosen, circuit = formats()[fmt], Circuit.read(run / "circuit")
    path = run / "export" / chosen.place if out is None else Path(out)
    if not chosen.genes:
        return chosen.write(circuit, path, max_edges) or path
    genes = run / "features" / "genes.parquet"
    table = pd.read_parquet(genes) if genes.is_file() else None
    return chosen.write(circuit, path, max_edges, genes=table) or path
