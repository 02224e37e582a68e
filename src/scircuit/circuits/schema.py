"""The columns of a circuit's tables, their types, and the refusals when a table does not fit."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scircuit.errors import ScircuitError

SOURCE = ["source_layer", "source_feature"]
TARGET = ["target_layer", "target_feature"]
ENDS = SOURCE + TARGET
LATENT = ["layer", "feature"]
LAYER_PAIR = ["source_layer", "target_layer"]
SCALE_KEY = ["source_layer", "target_layer", "target_feature"]
"""What a scale of decoys belongs to: all sources of a layer share it."""

DECOYS = ("random", "radial", "covariance", "dictionary", "encoder_cosine")
"""Kinds of decoys: pushes as large as a source's ablation, where it acts, along directions that mean nothing."""
GRADES = ("reproducible", "sizeable", "specific")
"""What an edge claims, each grade beside those before it."""

_MOMENTS = {
    "source_layer": "int16",
    "source_feature": "int32",
    "target_layer": "int16",
    "target_feature": "int32",
    "n_cells": "int32",
    "n_nonzero": "int32",
    "n_pos": "int32",
    "n_neg": "int32",
    "mean_delta": "float32",
    "sd_delta": "float32",
    "cohens_d": "float32",
    "consistency": "float32",
    "p_value": "float64",
}
_CLEAN = {"clean_mean": "float32", "clean_sd": "float32", "weight_effect": "float32"}

EFFECTS: Mapping[str, str] = {**_MOMENTS, **_CLEAN, "kind": "category", "draw": "int32"}
"""`trace/effects.parquet`: one row per retained test."""

EDGES: Mapping[str, str] = {**_MOMENTS, "q_value": "float64", **_CLEAN}
"""`circuit/edges.parquet`: one row per edge of the sources' own ablations."""

CONTROLS: Mapping[str, str] = {**EDGES, "draw": "int32"}
"""`circuit/controls.parquet`: one row per edge of a decoy."""

SIZED_BY = ("ci_low", "ci_high")
"""What the size of an edge needs of `effects` beside `EFFECTS`; older traces lack it."""
PUSHED_BY = ("push_norm", "push_weight")
"""What the specificity of an edge needs: mean norm of the rows taken from the residual stream, and encoder of the
target . mean row (units of the target)."""

UNSKEWED_BY = ("mean_delta", "sd_delta", "skewness")
"""What a p that allows for skewed responses needs: skewness over the cells that respond, NaN where their responses were
not kept."""
P_UNSKEWED = "p_unskewed"
"""That p where the trace took whole donors or batches for units: over them, as `p_value` is."""

TESTS: Mapping[str, str] = {
    "source_layer": "int16",
    "source_feature": "int32",
    "target_layer": "int16",
    "kind": "category",
    "draw": "int32",
    "n_cells": "int32",
    "n_targets": "int32",
    "n_tests": "int64",
    "n_retained": "int64",
}
"""`tests.parquet`: one row per (source, target layer, kind, draw)."""

NODES: Mapping[str, str] = {
    "layer": "int16",
    "feature": "int32",
    "label": "object",
    "frequency": "float32",
    "mean_activation": "float32",
    "top_genes": "object",
    "n_terms": "int32",
    "n_firings": "int64",
    "is_source": "bool",
}
"""`circuit/nodes.parquet`: one row per latent of every traced layer, edges or not."""

TERMS: Mapping[str, str] = {
    "layer": "int16",
    "feature": "int32",
    "term": "object",
    "n_overlap": "int32",
    "set_size": "int32",
    "query_size": "int32",
    "fold": "float32",
    "p_value": "float64",
    "q_value": "float64",
    "information_content": "float32",
}
"""`circuit/terms.parquet`: one row per significant (latent, gene set)."""


def gene_list(value: Any) -> list[str]:
    """`top_genes` of a latent as a list of strings, empty where there are none."""
    return [] if value is None or isinstance(value, float) else [str(gene) for gene in value]


def conform(table: pd.DataFrame, schema: Mapping[str, str], name: str) -> pd.DataFrame:
    """The table with the schema's columns first and in its types; further columns follow untouched."""
    missing = [column for column in schema if column not in table.columns]
    if missing:
        raise ScircuitError(f"the table {name} lacks {', '.join(missing)}; it needs the columns {', '.join(schema)}.")
    extra = [column for column in table.columns if column not in schema]
    typed = {}
    for column, dtype in schema.items():
        values = table[column]
        if str(values.dtype) == dtype:
            continue
        try:
            typed[column] = _cast(values, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise ScircuitError(
                f"column {column} of the table {name} cannot be read as {dtype} ({error}); "
                "write it again with the types of docs/architecture.md."
            ) from None
    ordered = table[[*schema, *extra]]
    return ordered.assign(**typed) if typed else ordered


def _cast(values: pd.Series, dtype: Any) -> pd.Series:
    if not str(dtype).startswith("int"):
        return values.astype(dtype)
    if values.isna().any():
        raise ValueError("values are missing")
    cast = values.astype(dtype)
    if not (cast == values).all():
        raise ValueError("values are not whole numbers of that size")
    return cast
