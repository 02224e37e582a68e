"""The feature catalogue: one streaming pass over cells describes every latent of every layer.

Phases: 1. each batch goes through the model once; 2. the residuals at gene positions of each layer are encoded;
3. firings are added to per-latent and per-(latent, gene) sums; 4. the sums become tables. Nothing that grows with
the number of cells is kept.
"""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scircuit._io import read_json
from scircuit._progress import progress
from scircuit._sealed import FILES, write_sealed
from scircuit._tables import read_parquet, write_parquet
from scircuit.cells.batch import TokenBatch
from scircuit.cells.vocabulary import gene_names
from scircuit.errors import ScircuitError
from scircuit.features.cells import CellProfile, enrich_obs
from scircuit.features.coactivation import Limits
from scircuit.features.sums import LayerSums
from scircuit.models.base import FoundationModel
from scircuit.models.stream import residuals
from scircuit.sae.adapter import as_saes
from scircuit.sae.base import SparseAutoencoder

FORMAT_VERSION = 1

_TABLES = ("features", "genes", "background", "cells")
_OPTIONAL = ("obs", "coactivation")


@dataclass(frozen=True)
class Catalogue:
    """What was seen of each latent; the tables have the columns of `features/` (docs/architecture.md)."""

    features: pd.DataFrame
    """One row per latent, live or dead; quantiles are from logarithmic bins, within 2.2 %."""
    genes: pd.DataFrame
    """The sparse loading profile, one row per (latent, gene) with a firing."""
    background: pd.DataFrame
    """The genes that were tokenised in the run."""
    cells: pd.DataFrame
    """The cells in which a latent is most active (mean activation over the cell's gene positions)."""
    obs: pd.DataFrame | None
    """Categories of cells among which a latent's top cells are over-represented (`features.cells.enrich_obs`)."""
    coactivation: pd.DataFrame | None
    """Latents of a layer that fire together (`features.coactivation.coactivation_table`), when asked for."""
    meta: Mapping[str, Any]
    """`n_cells, n_positions`, the options, and the model's fingerprint."""

    def write(self, folder: str | Path) -> None:
        """Write every table as Parquet and `features.json` last; each file whole or not at all."""
        folder = Path(folder)
        for name in (*_TABLES, *_OPTIONAL):
            if (table := getattr(self, name)) is not None:
                write_parquet(folder / f"{name}.parquet", table)
        tables = [f"{name}.parquet" for name in (*_TABLES, *_OPTIONAL) if getattr(self, name) is not None]
        write_sealed(folder / "features.json", {"format_version": FORMAT_VERSION, **self.meta}, tables)

    @classmethod
    def read(cls, folder: str | Path) -> "Catalogue":
        """Read what `write` wrote; a missing or newer artefact raises `ScircuitError`."""
        folder = Path(folder)
        meta = read_json(folder / "features.json")
        if meta.get("format_version") != FORMAT_VERSION:
            raise ScircuitError(
                f"{folder / 'features.json'} has format version {meta.get('format_version')}, this scircuit reads "
                f"{FORMAT_VERSION}; describe the features again or install the version that wrote it."
            )
        tables: dict[str, Any] = dict.fromkeys(_OPTIONAL)
        for name in (*_TABLES, *_OPTIONAL):
            if (file := folder / f"{name}.parquet").is_file():
                tables[name] = read_parquet(file)
            elif name in _TABLES:
                raise ScircuitError(f"{folder} lacks {name}.parquet; describe the features again.")
        return cls(**tables, meta={k: v for k, v in meta.items() if k not in ("format_version", FILES)})


def build_catalogue(
    model: FoundationModel,
    batches: Iterable[TokenBatch],
    saes: Mapping[int, Any],
    *,
    min_firings: int = 5,
    n_top_genes: int = 20,
    n_top_cells: int = 50,
    obs: pd.DataFrame | None = None,
    coactivation: Limits | None = None,
    rows_per_block: int = 8192,
) -> Catalogue:
    """Describe every latent of `saes` (of any library, see `as_sae`) on the cells of `batches`, in one pass.

    Parameters
    ----------
    batches : iterable of TokenBatch
        Each cell once. An iterator over a backed AnnData is fine: nothing is kept per cell.
    min_firings : int
        A gene counts among a latent's top genes only when the latent fired on it at least so often.
    obs : DataFrame, optional
        Categorical columns describing the cells, in the rows that `TokenBatch.cell` counts; latents are tested
        for over-represented categories.
    coactivation : Limits, optional
        Count which latents of a layer fire together, and keep the pairs within these limits. Costs about as much time
        as the rest of the pass on a GPU.
    rows_per_block : int
        Positions encoded at a time; bounds the memory of the encoder.

    Raises
    ------
    ScircuitError
        Without layers or cells, on an SAE whose width is not the model's, or on a numeric `obs` column.
    """
    saes = as_saes(saes)
    _check(model, saes)
    profile = CellProfile(obs)
    n_genes = len(model.genes)
    positions_per_gene = np.zeros(n_genes, dtype=np.int64)
    with tempfile.TemporaryDirectory(prefix="scircuit_catalogue_") as scratch:
        sums = {
            layer: LayerSums(layer, sae.n_latents, n_genes, n_top_cells, Path(scratch), coactivation)
            for layer, sae in saes.items()
        }
        for batch in progress(batches, desc="features", unit="batch"):
            at = batch.is_gene
            positions_per_gene += np.bincount(batch.gene[at], minlength=n_genes)
            profile.add(batch.cell)
            states = residuals(model, batch, list(saes))
            index = torch.from_numpy(at).to(model.device)
            for layer, sae in saes.items():
                sums[layer].add(sae, states.pop(layer)[index], batch, rows_per_block)
        if profile.n_cells == 0:
            raise ScircuitError("There is no cell to describe features on; pass at least one batch of tokens.")
        names = pd.DataFrame({"symbol": gene_names(model.genes), "ensembl_id": model.genes["ensembl_id"].to_numpy()})
        n_positions = int(positions_per_gene.sum())
        parts = [s.tables(names, n_positions, min_firings, n_top_genes) for s in sums.values()]
    features, genes, cells, together = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    meta = {
        "n_cells": profile.n_cells,
        "n_positions": n_positions,
        "layers": list(saes),
        "min_firings": min_firings,
        "n_top_genes": n_top_genes,
        "n_top_cells": n_top_cells,
        "model": model.fingerprint,
    }
    seen = positions_per_gene > 0
    background = names[seen].assign(n_positions=positions_per_gene[seen]).reset_index(drop=True)
    tested = enrich_obs(cells, profile) if profile.columns else None
    return Catalogue(features, genes, background, cells, tested, together if coactivation else None, meta)


def _check(model: FoundationModel, saes: Mapping[int, SparseAutoencoder]) -> None:
    if not saes:
        raise ScircuitError("No SAE was given; pass a mapping from layer to SAE with at least one layer.")
    for layer, sae in saes.items():
        if not 0 <= layer < model.n_layers:
            raise ScircuitError(f"{model.name} has no layer {layer}; layers are 0 to {model.n_layers - 1}.")
        if sae.d_in != model.d_model:
            raise ScircuitError(
                f"The SAE of layer {layer} reads {sae.d_in} dimensions but {model.name} has "
                f"{model.d_model}; take the SAEs trained on this model."
            )
