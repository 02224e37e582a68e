"""Tools that take an AnnData and leave their results in it, as scanpy's do: latents beside genes, a circuit from cells.

`features` puts the activation of every latent in every cell into `obsm`; `latents` makes of them an AnnData whose
variables are latents, for scanpy's plots and decoupler; `trace` takes cells to a finished `Run`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scircuit.config_file import merged, parse_config
from scircuit.errors import ScircuitError
from scircuit.runs.latents import KEY, described, of_latents
from scircuit.runs.run import Run

if TYPE_CHECKING:
    from anndata import AnnData

_COLUMN = f"{KEY}_L"
"""How the columns of `obsm` begin that hold the latents of a layer."""
_COUNTS = ("counts", "scale", "counts_kind", "gene_column")


def features(
    adata: "AnnData",
    run: str | Path | Run | None = None,
    *,
    model: Any = None,
    saes: Any = None,
    batch_size: int = 8,
    copy: bool = False,
    **counts: Any,
) -> "AnnData | None":
    """Activation of every latent in every cell, and what the latents are.

    Writes `obsm["scircuit_L02"]` for each layer: float32 `[cell, latent]`, sparse, mean over the cell's gene positions;
    `uns["scircuit"]`: `features`, of a run also `edges` and `run`.

    Parameters
    ----------
    adata : AnnData
        Raw counts, or what `counts` says of them (`counts, scale, counts_kind, gene_column`, as `tokenize` takes them).
    run : Run or path, optional
        Whose model, dictionaries, labels and circuit are taken; otherwise give `model` and `saes`, each as an object, a
        folder or the name of a packaged model.
    copy : bool
        Return a changed copy, and leave `adata` as it is.

    Raises
    ------
    ScircuitError
        Where a cell has no gene that the model knows: an activation that was not measured is not 0.
    """
    from scircuit.cells.tokens import tokenize
    from scircuit.features.activations import cell_activations

    found = None if run is None else run if isinstance(run, Run) else Run(run)
    model, saes = _opened(found, model, saes)
    store = tokenize(adata, model.tokenizer, **_of_counts(counts))
    if len(store) < adata.n_obs:
        without = adata.obs_names[~np.isin(np.arange(adata.n_obs), store.cells["_row"])]
        raise ScircuitError(
            f"{len(without)} of {adata.n_obs} cells ({', '.join(map(str, without[:3]))}, ...) have no gene that "
            f"{model.name} knows; leave them out first."
        )
    adata = adata.copy() if copy else adata
    for layer, matrix in cell_activations(model, store, saes, batch_size=batch_size).items():
        adata.obsm[f"{_COLUMN}{layer:02d}"] = matrix
    adata.uns[KEY] = described(found, {layer: sae.n_latents for layer, sae in saes.items()})
    return adata if copy else None


def latents(adata: "AnnData") -> "AnnData":
    """An AnnData whose variables are the latents that `features` left: the same cells, `var` with label and genes.

    Variables are called `L02_F0017`; `obs`, `obsm` and `obsp` of the cells come along, so that scanpy's embeddings,
    violins and dot plots and decoupler's methods work on latents as on genes.

    Raises
    ------
    ScircuitError
        Where `features` was not called before.
    """
    names = {int(name.removeprefix(_COLUMN)): name for name in adata.obsm if name.startswith(_COLUMN)}
    if KEY not in adata.uns or not names:
        raise ScircuitError("This AnnData holds no latents; call scircuit.tl.features(adata, run) first.")
    activations = {layer: sparse.csr_matrix(adata.obsm[name]) for layer, name in names.items()}
    found = of_latents(activations, adata.uns[KEY], adata.obs)
    for name in set(adata.obsm) - set(names.values()):
        found.obsm[name] = adata.obsm[name]
    for name in adata.obsp:
        found.obsp[name] = adata.obsp[name]
    return found


def trace(
    adata: "AnnData",
    out: str | Path,
    *,
    model: str = "geneformer-mini",
    saes: str | Path | None = None,
    activations: bool = True,
    **sections: Mapping[str, Any] | Any,
) -> Run:
    """From cells to circuit and report: `scircuit run` on an AnnData in memory.

    Parameters
    ----------
    out : path
        Folder of the run; the cells are written beside it (`OUT.cells.h5ad`), so that the run goes on where it was
        interrupted and can be repeated. The same call again returns the finished run.
    model, saes : str
        `model.source` and `sae.path` of the config; without `saes`, dictionaries are trained.
    activations : bool
        Also call `features` on `adata`.
    sections
        What else the config says, a table each: `trace={"n_cells": 50}`, `sources={"n": 5}`, `cells={"obs": ["type"]}`.

    Raises
    ------
    ScircuitError
        As `run` does; where `out` belongs to other cells.
    """
    from scircuit.runs.kept_cells import keep
    from scircuit.runs.stages import run as run_stages

    out = Path(out)
    file = out.with_name(f"{out.name}.cells.h5ad")
    own: dict[str, Any] = {"out": str(out), "model": {"source": str(model)}, "cells": {"path": str(file)}}
    if saes is not None:
        own["sae"] = {"path": str(saes)}
    for given, value in (("model", "source"), ("cells", "path"), ("sae", "path")):
        if value in dict(sections.get(given, {})):
            raise ScircuitError(f"{given}.{value} is an argument of its own here; give model=, saes= or the AnnData.")
    config = parse_config(merged({"name": out.name}, sections, own), where="scircuit.tl.trace")
    Run.open(config)
    keep(adata, file)
    run = run_stages(config)
    if activations:
        counts = {name: getattr(config.cells, name) for name in _COUNTS}
        features(adata, run, **counts)
    return run


def _opened(run: Run | None, model: Any, saes: Any) -> tuple[Any, Any]:
    from scircuit.models.load import load_model
    from scircuit.runs.inputs import open_saes

    if run is None and (model is None or saes is None):
        raise ScircuitError("Give a finished run, or both model= and saes=.")
    if run is not None and (model is not None or saes is not None):
        raise ScircuitError("A run has its own model and dictionaries; give the run, or model= and saes=, not both.")
    if run is not None:
        model = run.model()
        return model, run.saes(model)
    model = load_model(str(model)) if isinstance(model, (str, Path)) else model
    return model, open_saes(saes, model) if isinstance(saes, (str, Path)) else saes


def _of_counts(given: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := set(given) - {*_COUNTS, "min_rate"}:
        raise ScircuitError(f"{sorted(unknown)[0]} is unknown; how counts are read is told by {', '.join(_COUNTS)}.")
    return dict(given)
