"""What a run's model and dictionaries can be asked beyond the trace: chosen interventions, and the paths of edges."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._io import atomic
from scircuit.cells.tokens import TokenStore
from scircuit.circuits.circuit import Circuit
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.features.catalogue import Catalogue
from scircuit.models.base import FoundationModel
from scircuit.runs.inputs import open_model, open_saes
from scircuit.runs.run import RunFolder
from scircuit.runs.tokens import traced_cells
from scircuit.sae import LinearSAE
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.menu import build, parse_words
from scircuit.tracing.probes.path_shares import path_shares
from scircuit.tracing.probes.probe import probe

log = logging.getLogger(__name__)
PATHS = "path_shares.parquet"


def parse_latents(text: str) -> tuple[int, tuple[int, ...]]:
    """`3:17` (latent 17 of layer 3) or `3:17+40` (both at once) as layer and latents.

    Raises
    ------
    ScircuitError
        When it is written otherwise.
    """
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
    """Do every word (`tracing.menu.WORDS`) to every latent in the run's traced cells, and write one table.

    Parameters
    ----------
    latents
        As `parse_latents` reads them.
    where, what
        What is read; see `tracing.readouts.readout`.
    targets
        Target layers; empty means all later ones with a dictionary.
    n_cells
        Of the traced cells, only the first so many; None takes all.
    out
        Parquet file; by default `probes/WHAT_WHERE.parquet` of the run, which is replaced.

    Returns
    -------
    Path
        The file; columns as in `tracing.probe.probe`, for vocabulary entries with `gene`.

    Raises
    ------
    ScircuitError
        When an earlier artefact is missing, or on any wrong word, latent or read-out.
    """
    folder = RunFolder.open(config)
    asked = parse_words(words)
    groups: dict[int, list[tuple[int, ...]]] = {}
    for text in latents:
        layer, group = parse_latents(text)
        groups.setdefault(layer, []).append(group)
    model, store, saes = _opened(folder)
    features = Catalogue.read(folder.need("features")).features
    cells = traced_cells(store, config)
    cells = cells if n_cells is None else cells.subset(np.arange(min(n_cells, len(cells))))
    parts = []
    for layer, mine in sorted(groups.items()):
        _check(saes, layer, mine)
        todo = build(
            asked, mine, model=model, sae=saes[layer], cells=cells, layer=layer, features=features, seed=config.seed
        )
        parts.append(
            probe(model, saes, cells, layer, todo, targets=targets, where=where, what=what, tokens=config.trace.tokens)
        )
    table = pd.concat(parts, ignore_index=True)
    if what == "logits":
        table["gene"] = table["target"].map(_gene_of_token(model)).fillna("")
    path = folder.root / "probes" / f"{what}_{where}.parquet" if out is None else Path(out)
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)
    return path


def extra_interventions(
    config: RunConfig,
    model: FoundationModel,
    saes: Mapping[int, LinearSAE],
    cells: TokenStore,
    features: pd.DataFrame,
    sources: Mapping[int, Sequence[int]],
) -> dict[int, list[Intervention]]:
    """`trace.interventions` for every source, per layer; empty without any."""
    words = parse_words(config.trace.interventions)
    wrong = [w.action for w in words if w.action in ("zero", "random")]
    if wrong:
        raise ScircuitError(
            f"trace.interventions names {wrong[0]!r}, which is traced anyway (random: trace.n_random); leave it out."
        )
    if not words:
        return {}
    return {
        layer: build(
            words, [(f,) for f in latents], model=model, sae=saes[layer], cells=cells, layer=layer, features=features,
            seed=config.seed,
        )
        for layer, latents in sources.items()
    }  # fmt: skip


def run_paths(
    run: RunFolder, model: FoundationModel, store: TokenStore, saes: Mapping[int, LinearSAE], circuit: Circuit
) -> Path | None:
    """Write `trace/path_shares.parquet`: by which paths each edge of the circuit acts; None without an edge."""
    path = run.stage("trace") / PATHS
    if circuit.edges.empty or path.is_file():
        return path if path.is_file() else None
    cells = traced_cells(store, run.config)
    table = path_shares(model, saes, cells, circuit.edges, out=run.stage("trace"), tokens=run.config.trace.tokens)
    log.info(
        "median share of an effect that stays at the firing positions: %.3f, through other positions: %.3f",
        table["local_share"].median(), table["context_share"].median(),
    )  # fmt: skip
    return path


def paths_of_run(config: RunConfig) -> Path:
    """`run_paths` for a run that has its circuit.

    Raises
    ------
    ScircuitError
        When there is no circuit yet, or it has no edge.
    """
    folder = RunFolder.open(config)
    circuit = Circuit.read(folder.need("circuit"))
    model, store, saes = _opened(folder)
    path = run_paths(folder, model, store, saes, circuit)
    if path is None:
        raise ScircuitError(f"The circuit in {folder.root} has no edge, so there is no path to follow.")
    return path


def _opened(folder: RunFolder) -> tuple[FoundationModel, TokenStore, dict[int, LinearSAE]]:
    store = TokenStore.read(folder.need("tokens"))
    saes = folder.need("saes")
    model = open_model(folder.config)
    return model, store, open_saes(saes, model)


def _check(saes: Mapping[int, LinearSAE], layer: int, groups: Sequence[tuple[int, ...]]) -> None:
    if layer not in saes:
        raise ScircuitError(
            f"Layer {layer} has no dictionary; layers with one are {', '.join(map(str, sorted(saes)))}."
        )
    wrong = [f for group in groups for f in group if f >= saes[layer].n_latents]
    if wrong:
        raise ScircuitError(f"Layer {layer} has no latent {wrong[0]}; it has {saes[layer].n_latents}, counted from 0.")


def _gene_of_token(model: FoundationModel) -> dict[int, str]:
    genes = model.genes
    symbol = genes["symbol"].where(genes["symbol"] != "", genes["ensembl_id"])
    return dict(zip(genes["token"].astype(int), symbol, strict=True))
