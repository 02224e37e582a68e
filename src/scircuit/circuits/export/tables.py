"""A circuit as plain tables: CSV for spreadsheets, Parquet with what every column means, an AnnData of its latents."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._io import atomic, write_json
from scircuit._tables import write_csv, write_parquet
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.export.format import Format
from scircuit.circuits.export.parts import described, ends, node_id, strongest
from scircuit.errors import ScircuitError

EDGE_COLUMNS: Mapping[str, str] = {
    "source_layer": "layer of the latent that was ablated (0: after the first block)",
    "source_feature": "its number in the dictionary of that layer",
    "target_layer": "layer of the latent that responded",
    "target_feature": "its number in the dictionary of that layer",
    "n_cells": "cells in which the source fires",
    "n_nonzero": "of these, cells in which the target responds",
    "n_pos": "of these, cells in which the target rises",
    "n_neg": "of these, cells in which the target falls",
    "mean_delta": "mean response over cells: change of the target's activation at the positions where the source fires",
    "sd_delta": "standard deviation of the responses over cells",
    "cohens_d": "mean_delta / sd_delta: agreement of the cells, not size",
    "consistency": "share of the responding cells that agree in sign",
    "p_value": "sign-flip test over cells, or over units where the trace had some",
    "q_value": "Benjamini-Hochberg over every test with a response",
    "clean_mean": "mean activation of the target at those positions, nothing ablated",
    "clean_sd": "its standard deviation over cells",
    "weight_effect": "encoder of the target . decoder of the source",
    "hedges_g": "cohens_d corrected for few cells",
    "ci_low": "lower end of the 95% interval of mean_delta",
    "ci_high": "upper end of the 95% interval of mean_delta",
    "skewness": "of the responses that are not 0",
    "p_unskewed": "p that allows for skewed responses, over the units of p_value",
    "push_norm": "mean norm of the rows that the ablation takes from the residual stream",
    "push_weight": "encoder of the target . mean row that is taken away",
    "engine": "exact or local, which measured this row",
    "effect_sd": "mean_delta / clean_sd: size in standard deviations of the target",
    "effect_sd_low": "lower end of its 95% interval",
    "effect_sd_high": "upper end of its 95% interval",
    "effect_sd_near": "the end of that interval nearer to 0",
    "share_lost": "share of the target's clean activation that goes with the source",
    "specificity": "size beside pushes of the same norm without meaning, in their scale",
    "q_specific": "target-decoy q of that score",
    "grade": "the strictest claim the edge meets: reproducible, sizeable, specific",
}
"""What the columns of `edges` say."""
NODE_COLUMNS: Mapping[str, str] = {
    "layer": "layer of the latent",
    "feature": "its number in the dictionary of that layer",
    "label": "the gene set that names it",
    "frequency": "firings / gene positions",
    "mean_activation": "over its firings",
    "top_genes": "symbols by mean activation",
    "n_terms": "significant gene sets",
    "n_firings": "positions at which it fires",
    "is_source": "whether it was ablated",
}
"""What the columns of `nodes` say."""


def write_edge_csv(circuit: Circuit, path: str | Path, max_edges: int | None = None) -> None:
    """Write the edges as CSV, the names and genes of both ends beside every column of the edge table."""
    edges = strongest(circuit, max_edges).reset_index(drop=True)
    nodes = described(circuit, edges)
    named = {
        f"{end}_{what}": [nodes[pair[i]][what] for pair in ends(edges)]
        for i, end in enumerate(("source", "target"))
        for what in ("label", "genes")
    }
    write_csv(path, edges.assign(**named))


def write_tables(circuit: Circuit, folder: str | Path, max_edges: int | None = None) -> Path:
    """Write `edges.parquet`, `nodes.parquet` and `dictionary.json`, which says what each column is; returns the folder.

    Columns that a later version adds, or that someone joined, stand in the dictionary without a text.
    """
    folder, edges = Path(folder), strongest(circuit, max_edges)
    tables = {"edges": (edges, EDGE_COLUMNS), "nodes": (circuit.nodes, NODE_COLUMNS)}
    for name, (table, _) in tables.items():
        write_parquet(folder / f"{name}.parquet", table)
    columns = {
        name: {str(c): {"type": str(table[c].dtype), "meaning": known.get(str(c), "")} for c in table}
        for name, (table, known) in tables.items()
    }
    write_json(
        folder / "dictionary.json", {"run_id": circuit.run_id, "n_edges_of_circuit": len(circuit.edges), **columns}
    )
    return folder


def write_latents(
    circuit: Circuit, path: str | Path, max_edges: int | None = None, genes: pd.DataFrame | None = None
) -> None:
    """Write an AnnData whose observations are latents.

    `X`: mean activation on each gene (`genes`: features/genes.parquet); `obs`: label, genes, counts; `obsp`: of the
    edges `mean_delta`, `cohens_d` and `q_value`, rows are sources.

    Raises
    ------
    ScircuitError
        Without `genes`, or without edges.
    """
    import anndata
    from scipy import sparse

    if genes is None:
        raise ScircuitError("The genes of the latents are not there; run `scircuit features` first.")
    edges = strongest(circuit, max_edges)
    nodes = described(circuit, edges)
    place = {key: i for i, key in enumerate(nodes)}
    known = pd.MultiIndex.from_frame(genes[["layer", "feature"]]).isin(list(place))
    loadings = genes[known]
    gene, symbols = pd.factorize(loadings["gene"].astype(str), sort=True)
    rows = [place[key] for key in zip(loadings["layer"].tolist(), loadings["feature"].tolist(), strict=True)]
    x = sparse.csr_matrix((loadings["mean_activation"].to_numpy(np.float32), (rows, gene)), (len(place), len(symbols)))
    obs = pd.DataFrame(list(nodes.values()), index=[node_id(key) for key in nodes])
    found = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(symbols)))
    at = tuple(np.array([[place[a], place[b]] for a, b in ends(edges)]).T)
    for name in ("mean_delta", "cohens_d", "q_value"):
        found.obsp[name] = sparse.csr_matrix((edges[name].to_numpy(), at), (len(place), len(place)))
    found.uns["run_id"] = circuit.run_id
    with atomic(path) as temporary:
        found.write_h5ad(temporary)


CSV = Format("csv", "spreadsheets and R: the edges with both ends' names and genes", "edges.csv", write_edge_csv)
PARQUET = Format("parquet", "edges, nodes, and what every column means", "tables", write_tables)
ANNDATA = Format("anndata", "scanpy: latents by genes, the edges in obsp", "circuit.h5ad", write_latents, genes=True)
