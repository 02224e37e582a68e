"""The feature atlas of a run: catalogue, annotation, labels."""

import logging
from collections.abc import Mapping

import pandas as pd

from scircuit._io import atomic, write_json
from scircuit.cells.tokens import TokenStore
from scircuit.features.catalogue import Catalogue, build_catalogue
from scircuit.features.coactivation import Limits, find_modules, match_layers
from scircuit.features.control import random_gene_control
from scircuit.features.enrichment import enrich
from scircuit.features.labels import label_features
from scircuit.models.base import FoundationModel
from scircuit.pipeline.cells import batch_size, categories, split_cells
from scircuit.pipeline.folder import RunFolder
from scircuit.pipeline.opening import gene_set_libraries
from scircuit.sae import LinearSAE

log = logging.getLogger(__name__)


def run_features(
    run: RunFolder, model: FoundationModel, store: TokenStore, saes: Mapping[int, LinearSAE]
) -> tuple[Catalogue, pd.DataFrame]:
    """Stage `features`: catalogue on the `catalogue` cells, enrichment, labels. Returns catalogue and terms."""
    folder = run.stage("features")
    if run.done("features"):
        return Catalogue.read(folder), pd.read_parquet(folder / "terms.parquet")
    f = run.config.features
    libraries = gene_set_libraries(run.config)
    cells = split_cells(store, "catalogue")
    catalogue = build_catalogue(
        model, store.batches(batch_size(store), cells=cells), saes, min_firings=f.min_firings,
        n_top_genes=f.n_top_genes, obs=categories(store, run.config.cells.obs),
        coactivation=Limits() if f.coactivation else None,
    )  # fmt: skip
    found = enrich(catalogue.features, libraries, catalogue.background, alpha=f.alpha, min_overlap=f.min_overlap)
    catalogue = catalogue.with_features(label_features(catalogue.features, found.terms))
    control = None
    if f.control_draws and catalogue.features["top_genes"].map(len).any():
        control = random_gene_control(
            catalogue.features, libraries, catalogue.background, alpha=f.alpha, min_overlap=f.min_overlap,
            draws=f.control_draws, seed=run.config.seed,
        ).as_dict()  # fmt: skip
        log.info(
            "%.1f %% of latents are annotated, %.1f %% with random genes",
            100 * control["annotated"], 100 * control["control"],
        )  # fmt: skip
    catalogue.write(folder)
    tables = {"terms": found.terms}
    if catalogue.coactivation is not None:
        tables["modules"] = find_modules(catalogue.coactivation, seed=run.config.seed)
    if f.min_cosine is not None and len(saes) > 1:
        tables["layer_matches"] = match_layers({i: sae.W_dec for i, sae in saes.items()}, min_cosine=f.min_cosine)
    for name, table in tables.items():
        with atomic(folder / f"{name}.parquet") as path:
            table.to_parquet(path, index=False)
    write_json(folder / "labels.json", {"format_version": 1, **found.meta, "random_genes": control})
    return catalogue, found.terms
