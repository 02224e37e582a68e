"""What a run's model and dictionaries can be asked beyond the trace: chosen interventions, and the paths of edges."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._sealed import seal
from scircuit._tables import write_parquet
from scircuit.cells.vocabulary import gene_names
from scircuit.circuits.circuit import Circuit
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.features.catalogue import Catalogue
from scircuit.runs.run import Run
from scircuit.runs.tokens import traced_cells
from scircuit.tracing.menu import build, parse_words
from scircuit.tracing.probes.path_shares import path_shares
from scircuit.tracing.probes.probe import probe
from scircuit.tracing.setup import Setup

log = logging.getLogger(__name__)


def parse_latents(text: str) -> tuple[int, tuple[int, ...]]:
    """`3:17` (latent 17 of layer 3) or `3:17+40` (both at once) as layer and latents."""
    match = re.fullmatch(r"(\d+):(\d+(?:\+\d+)*)", text)
    if match is None:
        raise ScircuitError(
            f"{text!r} names no latent; write LAYER:LATENT, or LAYER:LATENT+LATENT for several at once."
        )
    return int(match[1]), tuple(int(f) for f in match[2].split("+"))


def probe_run(
    config: RunConfig,
    latents: Sequence[str],
    words: Sequence[str],
    *,
    where: str = "active",
    what: str = "activation",
    targets: Sequence[int] = (),
    n_cells: int | None = None,
    out: Path | None = None,
) -> Path:
    """Do every word (`tracing.menu.WORDS`) to every latent in the run's traced cells; returns the file of the table.

    `latents` are written as `parse_latents` reads them; `where`, `what` and `targets` as for `tracing.probes.probe`. Of
    the traced cells, the first `n_cells` or all. The file is `out`, by default `probes/WHAT_WHERE.parquet` of the run,
    which is replaced; beside the columns of `probe` it has `gene` for vocabulary entries.
    """
    folder = Run.open(config)
    asked = parse_words(words)
    groups: dict[int, list[tuple[int, ...]]] = {}
    for text in latents:
        layer, group = parse_latents(text)
        groups.setdefault(layer, []).append(group)
    setup = folder.setup()
    features = Catalogue.read(folder.need("features")).features
    cells = traced_cells(setup.cells, config)
    cells = cells if n_cells is None else cells.subset(np.arange(min(n_cells, len(cells))))
    setup = replace(setup, cells=cells)
    parts = []
    for layer, mine in sorted(groups.items()):
        _check(setup, layer, mine)
        todo = build(asked, mine, setup, layer, features)
        parts.append(probe(setup, layer, todo, targets=targets, where=where, what=what))
    table = pd.concat(parts, ignore_index=True)
    if what == "logits":
        genes = setup.model.genes
        table["gene"] = table["target"].map(dict(zip(genes["token"], gene_names(genes), strict=True))).fillna("")
    path = folder.root / "probes" / f"{what}_{where}.parquet" if out is None else Path(out)
    write_parquet(path, table)
    if out is None:
        seal(path)
    return path


def run_paths(run: Run, setup: Setup, circuit: Circuit) -> Path | None:
    """Write `trace/path_shares.parquet`: by which paths each edge of the circuit acts; None without an edge."""
    path = run.path("path_shares")
    if circuit.edges.empty or path.is_file():
        return path if path.is_file() else None
    setup = replace(setup, cells=traced_cells(setup.cells, run.config))
    table = path_shares(setup, circuit.edges)
    write_parquet(path, table)
    seal(path)
    log.info(
        "median share of an effect that stays at the firing positions: %.3f, through other positions: %.3f",
        table["local_share"].median(), table["context_share"].median(),
    )  # fmt: skip
    return path


def paths_of_run(config: RunConfig) -> Path:
    """`run_paths` for a run that has its circuit."""
    folder = Run.open(config)
    circuit = folder.circuit()
    path = run_paths(folder, folder.setup(), circuit)
    if path is None:
        raise ScircuitError(f"The circuit in {folder.root} has no edge, so there is no path to follow.")
    return path


def _check(setup: Setup, layer: int, groups: Sequence[tuple[int, ...]]) -> None:
    saes = setup.saes
    if layer not in saes:
        raise ScircuitError(
            f"Layer {layer} has no dictionary; layers with one are {', '.join(map(str, sorted(saes)))}."
        )
    wrong = [f for group in groups for f in group if f >= saes[layer].n_latents]
    if wrong:
        raise ScircuitError(f"Layer {layer} has no latent {wrong[0]}; it has {saes[layer].n_latents}, counted from 0.")
