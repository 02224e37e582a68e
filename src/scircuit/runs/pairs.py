"""What is known of a circuit's pairs without intervention: tables for the questions that compare with it."""

import logging

import numpy as np
from scipy import sparse

from scircuit._sealed import seal
from scircuit._tables import write_parquet
from scircuit.analysis.coexpression import pair_correlations
from scircuit.cells.expression import Expression
from scircuit.cells.tokens import TokenStore
from scircuit.cells.vocabulary import gene_names
from scircuit.circuits.circuit import Circuit
from scircuit.features.across import watch_across
from scircuit.models.base import FoundationModel
from scircuit.runs.run import Run
from scircuit.runs.tokens import batch_size, drawn_cells, open_data, reading
from scircuit.tracing.setup import Setup

log = logging.getLogger(__name__)
MOST_PAIRS = 20_000_000
"""Pairs of a source and a later latent up to which they are counted; 160 MB of counters."""


def run_pairs(run: Run, setup: Setup, circuit: Circuit) -> None:
    """Write `features/coactivation_across.parquet` and `features/correlations.parquet`, over catalogue cells.

    Cells that were not traced, so that chance in the traced ones does not make both sides agree.
    """
    model, store, saes = setup.model, setup.cells, setup.saes
    n = run.config.features.pair_cells
    last = run.stage("features") / "correlations.parquet"
    if not n or last.is_file() or circuit.edges.empty:
        return
    of_layer = circuit.nodes[circuit.nodes["is_source"]].groupby("layer")["feature"]
    sources = {int(str(layer)): [int(f) for f in features] for layer, features in of_layer}
    n_pairs = sum(len(s) * saes[b].n_latents for a, s in sources.items() for b in saes if b > a)
    if n_pairs > MOST_PAIRS:
        log.info(
            "co-activation across layers is left out: %s pairs are more than %s", f"{n_pairs:,}", f"{MOST_PAIRS:,}"
        )
        return
    cells = drawn_cells(store, run.config, "catalogue", n, 4)
    seen = watch_across(model, store.batches(batch_size(store), cells=cells), saes, sources, cells)
    expression = log_expression(run, model, store, cells)
    correlations = pair_correlations(circuit, expression, gene_names(model.genes).tolist(), seen.activations)
    for name, table in (("coactivation_across", seen.pmi), ("correlations", correlations)):
        write_parquet(run.stage("features") / f"{name}.parquet", table)
        seal(run.stage("features") / f"{name}.parquet")


def log_expression(run: Run, model: FoundationModel, store: TokenStore, cells: np.ndarray) -> sparse.csr_matrix:
    """log(1 + counts per 10,000) of the cells `cells` of the store, `[cell, vocabulary gene]`."""
    c = run.config.cells
    data = open_data(c, run.config.seed).adata
    expression = Expression.of(data, model.tokenizer.vocabulary, **reading(c))
    blocks = [
        sparse.diags(1e4 / np.maximum(total, 1e-12)) @ mapped
        for _, total, mapped in expression.blocks(store.cells["_row"].to_numpy()[cells])
    ]
    return sparse.vstack(blocks, format="csr").log1p()
