"""Edges that the local engine's error could flip, and what exact measurement puts in their place."""

from dataclasses import replace

import numpy as np
import pandas as pd

from scircuit._tables import write_parquet
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.specificity import n_made, of_family
from scircuit.stats.signflip import can_reach
from scircuit.tracing.assemble import Tables
from scircuit.tracing.fidelity import Fidelity
from scircuit.tracing.settings import TraceSettings

_ERRORS = 3.0
"""Root-mean-square errors of d within which an effect counts as near the threshold."""


def borderline(
    tables: Tables, fidelity: Fidelity, settings: TraceSettings, t_form: bool = False
) -> dict[int, list[tuple[int, str, int]]]:
    """Interventions, per layer as (latent, kind, draw), with an edge to be measured again (`settings.confirm`).

    Sources and decoys alike, or their comparison would be one of engines.

    `borderline`: beyond distance 1 (where the local engine is exact), effects that do not clearly fail any
    threshold and are near one: |d| within 3 root-mean-square errors of the fidelity check at that distance,
    consistency (as the rule counts it) within one and a half cells, q within a factor of two. With `t_form`, where p is
    not that of the responses, also effects at any distance that a sign-flip p could make an edge and theirs does not.
    `all`: every effect beyond distance 1 that passes the thresholds or is borderline.
    """
    found: dict[int, set[tuple[int, str, int]]] = {}
    for family in ("latent", "random"):
        e = tables.effects[of_family(tables.effects, family)]
        if settings.confirm == "none" or e.empty:
            continue
        n_tests = n_made(tables.tests, family)
        near = _near(e, n_tests, fidelity, settings)
        if t_form:
            near |= _undecided(e, n_tests, settings.rule)
        ends = e.loc[near, ["source_layer", "source_feature", "kind", "draw"]].drop_duplicates()
        for layer, feature, kind, draw in ends.itertuples(index=False):
            found.setdefault(int(layer), set()).add((int(feature), str(kind), int(draw)))
    return {layer: sorted(some) for layer, some in sorted(found.items())}


def _near(e: pd.DataFrame, n_tests: int, fidelity: Fidelity, settings: TraceSettings) -> np.ndarray:
    """Which tests of one family are to be measured again, bool `[test]`."""
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
    return np.asarray((distance > 1) & ~fails & (near | (settings.confirm == "all")))


def _undecided(e: pd.DataFrame, n_tests: int, rule: EdgeRule) -> np.ndarray:
    """Tests that only the t form of their p keeps from being edges, bool `[test]`."""
    if rule.max_q is None:
        return np.zeros(len(e), dtype=bool)
    n, mean, sd = (e[name].to_numpy(np.float64) for name in ("n_cells", "mean_delta", "sd_delta"))
    squares = (n - 1) * sd**2 + n * mean**2
    reachable = can_reach(rule.max_q, e["n_nonzero"], n * mean, squares)
    return replace(rule, max_q=None).passes(e) & reachable & ~rule.passes(e, n_tests)


def replace_rows(tables: Tables, again: Tables) -> Tables:
    """The exact rows of the interventions measured again instead of their local ones; counts of forwards add up.

    Scales of decoys stay as the local engine measured all of them.
    """
    what = ["source_layer", "source_feature", "kind", "draw"]
    redone = again.tests[what].drop_duplicates().astype({"kind": str})

    def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
        ends = what if "kind" in old else what[:2]
        key = pd.MultiIndex.from_frame(old[ends].astype({"kind": str} if "kind" in old else {}))
        again_here = redone if "kind" in old else redone.loc[redone["kind"] == "latent", ends]
        return pd.concat([old[~key.isin(pd.MultiIndex.from_frame(again_here))], new], ignore_index=True)

    responses = merged(*(pd.read_parquet(t.cells) for t in (tables, again)))
    write_parquet(again.cells, responses)
    return Tables(
        effects=merged(tables.effects, again.effects),
        tests=merged(tables.tests, again.tests),
        cells=again.cells,
        source_cells=tables.source_cells,
        scales=tables.scales,
        groups=None if tables.groups is None or again.groups is None else merged(tables.groups, again.groups),
        n_clean=tables.n_clean + again.n_clean,
        n_ablated=tables.n_ablated + again.n_ablated,
    )
