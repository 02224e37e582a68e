"""The latents that travel with a page: genes, gene sets, activations, the cells in which they are strongest."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from scircuit._tables import read_parquet
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import LATENT, gene_list
from scircuit.report.packing import LONGEST, Words, held_by, power, real, rows_among, whole
from scircuit.report.picture import has_label
from scircuit.report.reading import sae_layers

TOP_GENES, TOP_CELLS = 20, 8
"""Of each latent."""
QUANTILES = ("q25", "q50", "q75", "q95", "max_activation")


def latent_columns(nodes: pd.DataFrame, terms: pd.DataFrame, words: Words) -> dict[str, np.ndarray]:
    """The columns of the node table, with the genes and the significant sets of each latent."""
    genes = [gene_list(value)[:TOP_GENES] for value in nodes["top_genes"]]
    n_genes = np.array([len(listed) for listed in genes], dtype=np.int64)
    named = [str(label) if has_label({"n_terms": n, "label": label}) else ""
             for n, label in zip(nodes["n_terms"], nodes["label"], strict=True)]  # fmt: skip
    found, at = held_by(nodes, terms, LATENT, "q_value")
    return {
        "n.layer": whole(nodes["layer"]),
        "n.feature": whole(nodes["feature"]),
        "n.label": words.places(named),
        "n.is_source": whole(nodes["is_source"]),
        "n.frequency": real(nodes["frequency"]),
        "n.mean_activation": real(nodes["mean_activation"]),
        "n.n_firings": whole(nodes["n_firings"]),
        "genes.at": whole(np.concatenate([[0], np.cumsum(n_genes)])),
        "genes.name": words.places([gene for listed in genes for gene in listed]),
        "terms.at": at,
        "terms.name": words.places(found["term"]),
        "terms.q_value": power(found["q_value"]),
        "terms.fold": real(found["fold"]),
        "terms.n_overlap": whole(found["n_overlap"]),
        "terms.set_size": whole(found["set_size"]),
    }


def latent_parts(run: Artefacts, nodes: pd.DataFrame, words: Words, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the catalogue of the run says of these latents; nothing of what is not there."""
    layers = sae_layers(run)
    for name in ("seed_stability", "seed_stability_random"):
        if name in layers:
            known = layers[["layer", name]].dropna()
            facts[name] = {str(int(layer)): round(float(value), 4) for layer, value in known.to_numpy()}
    return {
        **_activations(run, nodes, words),
        **_gene_activations(run, nodes),
        **_categories(run, nodes, words),
        **_top_cells(run, nodes, words),
    }


def _activations(run: Artefacts, nodes: pd.DataFrame, words: Words) -> dict[str, np.ndarray]:
    if not run.has("features"):
        return {}
    table = run.table("features")
    known = [name for name in QUANTILES if name in table]
    row = rows_among(table, nodes, LATENT)
    if (row < 0).any():  # a catalogue of other latents
        return {}
    table = table.iloc[row]
    columns = {f"n.{name}": real(table[name]) for name in known}
    columns |= {"n.n_cells": whole(table["n_cells"])} if "n_cells" in table else {}
    return columns | ({"n.runner_up": words.places(table["runner_up"])} if "runner_up" in table else {})


def _gene_activations(run: Artefacts, nodes: pd.DataFrame) -> dict[str, np.ndarray]:
    """Mean activation at each top gene, in the order of `genes.name`; nothing where a gene's is not known."""
    if not run.has("genes") or run.n_rows("genes") > LONGEST:
        return {}
    table = run.table("genes", [*LATENT, "gene", "mean_activation"])
    table = table.assign(row=rows_among(nodes, table, LATENT)).drop_duplicates(["row", "gene"])
    listed = [(row, gene) for row, genes in enumerate(nodes["top_genes"]) for gene in gene_list(genes)[:TOP_GENES]]
    known = pd.DataFrame(listed, columns=["row", "gene"]).merge(table, on=["row", "gene"], how="left")
    return {"genes.activation": real(known["mean_activation"])} if known["mean_activation"].notna().all() else {}


def _categories(run: Artefacts, nodes: pd.DataFrame, words: Words) -> dict[str, np.ndarray]:
    """Cell types and other columns of the cells in which a latent's strongest cells are enriched."""
    path = run.root / "features" / "obs.parquet"
    if not path.is_file():
        return {}
    table, at = held_by(nodes, read_parquet(path), LATENT, "q_value")
    return {
        "obs.at": at,
        "obs.name": words.places(table["column"].astype(str) + ": " + table["category"].astype(str)),
        "obs.fold": real(table["fold"]),
        "obs.q_value": power(table["q_value"]),
        "obs.n_overlap": whole(table["n_overlap"]),
        "obs.query_size": whole(table["query_size"]),
    }


def _top_cells(run: Artefacts, nodes: pd.DataFrame, words: Words) -> dict[str, np.ndarray]:
    """The cells in which a latent is strongest, with what the columns that are tested for enrichment say of them."""
    path = run.root / "features" / "cells.parquet"
    if not path.is_file():
        return {}
    table = read_parquet(path)
    table, at = held_by(nodes, table[table["rank"] < TOP_CELLS], LATENT, "rank")
    return {
        "top.at": at,
        "top.cell": words.places(_called(run)(table["cell"].to_numpy())),
        "top.activation": real(table["activation"]),
    }


def _called(run: Artefacts) -> Callable[[Iterable[int]], list[str]]:
    """A function that says of cells what they are: their name, and the columns tested for enrichment."""
    cells, obs = run.root / "tokens" / "cells.parquet", run.root / "features" / "obs.parquet"
    if not cells.is_file():
        return lambda found: [f"cell {cell}" for cell in found]
    table = read_parquet(cells)
    tested = set(read_parquet(obs, ["column"])["column"]) if obs.is_file() else set()
    shown = table[[column for column in table if column in tested]].astype(str)
    said = shown.agg(", ".join, axis=1) if shown.shape[1] else pd.Series("", index=table.index)
    names = (table["index"] if "index" in table else table.index.to_series()).astype(str)
    known = [f"{name} ({text})" if text else name for name, text in zip(names, said, strict=True)]
    return lambda found: [known[cell] for cell in found]
