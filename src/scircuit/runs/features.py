"""The feature atlas of a run: catalogue, annotation, labels."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

import pandas as pd

from scircuit._sealed import write_sealed
from scircuit._tables import write_parquet
from scircuit.config import RunConfig
from scircuit.features.catalogue import Catalogue, build_catalogue
from scircuit.features.coactivation import Limits, find_modules, match_layers
from scircuit.features.enrichment import Enrichment
from scircuit.features.ranked import rank_enrich
from scircuit.features.support import network_support
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.networks import Network
from scircuit.runs.inputs import gene_set_libraries, networks, rule_of_annotation
from scircuit.runs.run import Run
from scircuit.runs.tokens import batch_size, categories, split_cells
from scircuit.tracing.setup import Setup

log = logging.getLogger(__name__)


def run_features(run: Run, setup: Setup) -> tuple[Catalogue, pd.DataFrame]:
    """Stage `features`: catalogue on the `catalogue` cells, enrichment, labels. Returns catalogue and terms."""
    folder = run.stage("features")
    if run.done("features"):
        return Catalogue.read(folder), run.table("terms")
    f, store, saes = run.config.features, setup.cells, setup.saes
    libraries = gene_set_libraries(run.config)
    linked = networks(run.config)
    cells = split_cells(store, "catalogue")
    catalogue = build_catalogue(
        setup.model, store.batches(batch_size(store), cells=cells), saes, min_firings=f.min_firings,
        n_top_genes=f.n_top_genes, obs=categories(store, run.config.cells.obs),
        coactivation=Limits() if f.coactivation else None,
    )  # fmt: skip
    features, found, control = annotate(run.config, catalogue, libraries, linked)
    catalogue = replace(catalogue, features=features)
    catalogue.write(folder)
    tables = {"terms": found.terms}
    if f.ranked:
        ranked = rank_enrich(features, catalogue.genes, libraries, catalogue.background, alpha=f.alpha)
        tables["ranked_terms"] = ranked.terms
    if linked:
        tested = [network_support(features, n, catalogue.background, seed=run.config.seed) for n in linked]
        tables["support"] = pd.concat(tested, ignore_index=True)
    if catalogue.coactivation is not None:
        tables["modules"] = find_modules(catalogue.coactivation, method=f.modules, seed=run.config.seed)
    if f.min_cosine is not None and len(saes) > 1:
        tables["layer_matches"] = match_layers({i: sae.W_dec for i, sae in saes.items()}, min_cosine=f.min_cosine)
    for name, table in tables.items():
        write_parquet(folder / f"{name}.parquet", table)
    content = {"format_version": 1, **found.meta, "random_genes": control}
    write_sealed(folder / "labels.json", content, [f"{name}.parquet" for name in tables])
    return catalogue, found.terms


def annotate(
    config: RunConfig, catalogue: Catalogue, libraries: Sequence[GeneSets], linked: Sequence[Network]
) -> tuple[pd.DataFrame, Enrichment, dict[str, float] | None]:
    """Labelled features, terms, and the chance of an annotation, by the run's rule of annotation."""
    f, features, control = config.features, catalogue.features, None
    rule = rule_of_annotation(config, libraries, linked)
    if f.control_draws and features["top_genes"].map(len).any():
        control = asdict(rule.control(features, catalogue.background, draws=f.control_draws, seed=config.seed))
    labelled, found = rule.annotate(features, catalogue.background)
    if control is not None:
        log.info(
            "%.1f %% of latents are annotated, %.1f %% with random genes",
            100 * control["annotated"], 100 * control["control"],
        )  # fmt: skip
    return labelled, found, control
