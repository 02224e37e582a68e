"""What a run's model says of genes: without a source, and without a gene's token. Needs the model."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit._sealed import seal
from scircuit._tables import write_parquet
from scircuit.cells.batch import TokenBatch
from scircuit.cells.tokens import TokenStore
from scircuit.cells.vocabulary import gene_names
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.runs.run import Run
from scircuit.runs.tokens import batch_size, traced_cells
from scircuit.tracing.probes.outputs import OutputChange, ablation_outputs, deletion_outputs, require_outputs

log = logging.getLogger(__name__)


def run_logits(run: str | Path, n_cells: int = 50, seed: int = 0) -> Path:
    """Ablate every source of a run in traced cells and keep what it does to the output for each gene.

    Writes `trace/logits.parquet`: `source_layer, source_feature, gene, mean_delta, n_cells`, one row per source and
    gene that any of the cells holds; `mean_delta` in units of the output (logit, or expression bin). A table that is
    there is kept.
    """
    opened, model, store = _open(Run(run), n_cells, seed)
    path = opened.path("logits")
    if path.is_file():
        log.info("%s is there already", path)
        return path
    saes = opened.saes(model)
    tests = opened.circuit().tests
    sources = tests.loc[tests["kind"] == "latent", ["source_layer", "source_feature"]].drop_duplicates()
    parts = []
    for name, own in progress(list(sources.groupby("source_layer")), desc="outputs", unit="layer"):
        layer, features = int(str(name)), [int(feature) for feature in own["source_feature"]]
        found = ablation_outputs(model, saes[layer], layer, features, store.batches(batch_size(store)))
        parts.append(_table(found, features, model).assign(source_layer=layer))
    table = pd.concat(parts, ignore_index=True).rename(columns={"row": "source_feature", "score": "mean_delta"})
    write_parquet(path, table[["source_layer", "source_feature", "gene", "mean_delta", "n_cells"]])
    seal(path)
    return path


def run_deletion(run: str | Path, genes: Sequence[str], n_cells: int = 50, seed: int = 0) -> pd.DataFrame:
    """Delete each gene's token from at most `n_cells` traced cells of a run and read what the model says of the others.

    Symbols that the model does not read, or that no cell holds, are left out. Returns `target` (the deleted gene),
    `gene, score` (mean change of the output, negative: less of it), `n_cells`: what `scircuit.perturbation.validate`
    takes as an extra baseline.
    """
    _, model, store = _open(Run(run), None, seed)
    symbols = pd.Index(gene_names(model.genes))
    wanted = {gene: int(row) for gene in genes for row in np.flatnonzero(symbols == gene)[:1]}
    cell_of = np.repeat(np.arange(len(store)), store.lengths)
    rng = np.random.default_rng([seed, 6])
    held: list[tuple[str, np.ndarray]] = []
    for gene, row in wanted.items():
        cells = np.unique(cell_of[store.gene == row])
        if len(cells):
            held.append((gene, np.sort(rng.choice(cells, min(n_cells, len(cells)), replace=False))))
    log.info("in-silico deletion of %d of %d genes that traced cells hold", len(held), len(genes))
    if not held:
        return pd.DataFrame({"target": [], "gene": [], "score": [], "n_cells": []})

    def batches_of() -> Iterator[tuple[int, Iterable[TokenBatch]]]:
        for row, (_, cells) in enumerate(progress(held, desc="deletion", unit="gene")):
            yield row, store.batches(batch_size(store), cells=cells)

    found = deletion_outputs(model, [wanted[gene] for gene, _ in held], batches_of())
    table = _table(found, [gene for gene, _ in held], model).rename(columns={"row": "target"})
    return table[["target", "gene", "score", "n_cells"]]


def _open(run: Run, n_cells: int | None, seed: int) -> tuple[Run, FoundationModel, TokenStore]:
    store = run.cells()
    try:
        model = run.model()
    except ScircuitError as error:
        raise ScircuitError(f"{error} Its own outputs need the model; leave them out with --no-deletion.") from None
    require_outputs(model)
    traced = run.circuit().provenance["model"]
    if traced["fingerprint"] != model.fingerprint:
        raise ScircuitError(
            f"{run.root} was traced in another {traced['name']} (fingerprint {traced['fingerprint'][:12]}, not "
            f"{model.fingerprint[:12]}); its outputs would be another model's: trace again, or leave them out with "
            "--no-deletion."
        )
    cells = traced_cells(store, run.config)
    if n_cells is not None and n_cells < len(cells):
        cells = cells.subset(np.sort(np.random.default_rng([seed, 5]).choice(len(cells), n_cells, replace=False)))
    return run, model, cells


def _table(found: OutputChange, names: Sequence[object], model: FoundationModel) -> pd.DataFrame:
    row, gene = np.nonzero(found.n_cells)
    return pd.DataFrame(
        {
            "row": np.array(names)[row],
            "gene": gene_names(model.genes)[gene],
            "score": found.mean()[row, gene],
            "n_cells": found.n_cells[row, gene],
        }
    )
