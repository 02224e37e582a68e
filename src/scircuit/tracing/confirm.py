"""Edges that the local engine's error could flip, and what exact measurement puts in their place."""

import numpy as np
import pandas as pd

from scircuit.tracing.assemble import Tables
from scircuit.tracing.fidelity import Fidelity
from scircuit.tracing.settings import TraceSettings

_ERRORS = 3.0
"""Root-mean-square errors of d within which an effect counts as near the threshold."""


def borderline(tables: Tables, fidelity: Fidelity, settings: TraceSettings) -> dict[int, list[int]]:
    """Sources, per layer, with an edge to be measured again (`settings.confirm`).

    `borderline`: beyond distance 1 (where the local engine is exact), effects that do not clearly fail any
    threshold and are near one: |d| within 3 root-mean-square errors of the fidelity check at that distance,
    consistency (as the rule counts it) within one and a half cells, q within a factor of two. `all`: every effect
    beyond distance 1 that passes the thresholds or is borderline.
    """
    e = tables.effects[tables.effects["kind"] == "latent"]
    if settings.confirm == "none" or e.empty:
        return {}
    n_tests = int(tables.tests.loc[tables.tests["kind"] == "latent", "n_tests"].sum())
    rule = settings.rule
    q = rule.q_values(e, n_tests)
    distance = (e["target_layer"] - e["source_layer"]).to_numpy()
    rmse = fidelity.table.set_index("distance")["rmse"].reindex(distance).to_numpy()
    d, c = e["cohens_d"].abs().to_numpy(), rule.agreement(e)
    margin_c = 1.5 / rule.votes(e)[1]
    limit_q = rule.max_q if rule.max_q is not None else np.inf
    fails = (d < rule.min_abs_d - _ERRORS * rmse) | (c < rule.min_consistency - margin_c) | (q > 2 * limit_q)
    near = np.abs(d - rule.min_abs_d) <= _ERRORS * rmse
    near |= np.abs(c - rule.min_consistency) <= margin_c
    near |= (q >= limit_q / 2) & (q <= 2 * limit_q)
    chosen = e[(distance > 1) & ~fails & (near | (settings.confirm == "all"))]
    found: dict[int, set[int]] = {}
    for layer, feature in chosen[["source_layer", "source_feature"]].to_numpy(np.int64).tolist():
        found.setdefault(layer, set()).add(feature)
    return {layer: sorted(features) for layer, features in sorted(found.items())}


def replace_rows(tables: Tables, again: Tables) -> Tables:
    """The exact rows of the sources measured again instead of their local ones; counts of forwards add up.

    Only the exact engine keeps per-cell responses.
    """
    ends = ["source_layer", "source_feature"]
    redone = pd.MultiIndex.from_frame(again.tests[ends].drop_duplicates())

    def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
        stale = pd.MultiIndex.from_frame(old[ends]).isin(redone)
        if "kind" in old:
            stale &= (old["kind"] == "latent").to_numpy()
        return pd.concat([old[~stale], new], ignore_index=True)

    return Tables(
        effects=merged(tables.effects, again.effects),
        tests=merged(tables.tests, again.tests),
        cells=again.cells,
        source_cells=tables.source_cells,
        groups=None if tables.groups is None or again.groups is None else merged(tables.groups, again.groups),
        n_clean=tables.n_clean + again.n_clean,
        n_ablated=tables.n_ablated + again.n_ablated,
    )
