"""From the tests of a trace to the edges of a circuit: one family of tests, one rule."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from scircuit.circuits.circuit import Circuit
from scircuit.circuits.grades import at_least, graded, headline
from scircuit.circuits.rule import DEFAULT, EdgeRule, unskewed
from scircuit.circuits.schema import CONTROLS, EDGES, EFFECTS, ENDS, NODES, SOURCE, TERMS, TESTS, conform
from scircuit.circuits.specificity import n_made, of_family
from scircuit.errors import ScircuitError
from scircuit.stats.signflip import screen_p

logger = logging.getLogger(__name__)

RETENTION = 0.05
"""Largest p-value that a trace keeps unless its `trace.json` says otherwise."""


def build_circuit(
    effects: pd.DataFrame,
    tests: pd.DataFrame,
    features: pd.DataFrame,
    terms: pd.DataFrame,
    rule: EdgeRule = DEFAULT,
    provenance: Mapping[str, Any] | None = None,
    scales: pd.DataFrame | None = None,
) -> Circuit:
    """Assemble a circuit from the artefacts of a trace and of the feature catalogue.

    Benjamini-Hochberg runs over every test with a non-zero response: those retained in `effects` and, through
    the counts in `tests`, those that were not. Ablations of latents and decoys are two families.

    Parameters
    ----------
    effects, tests, features, terms, scales : DataFrame
        The files of these names in `trace/` and `features/`; without `scales` (or without decoys) no edge can be called
        specific.
    rule : EdgeRule
        `max_q` may not exceed the level up to which the trace kept its tests.
    provenance : mapping, optional
        What goes to `run.json`; `retention` in it is the trace's retention level (default 0.05),
        `kept_abs_d` the |d| above which it kept every test whatever its p (None: it did not).

    Returns
    -------
    Circuit
        Every reproducible edge and control with its `grade` (`Circuit.at` takes those of one), sorted by their ends.
        Provenance gains `thresholds`, `grade` (the strictest that the rule asks and the trace can tell), `grades`
        (edges of each beside those of held-out decoys), `n_tests`, `n_control_tests`, `n_edges`, and `n_skewed`
        (reproducible edges that `allow_for_skew` would not call; None where responses were not kept or no q is asked).

    Raises
    ------
    ScircuitError
        On missing columns, `max_q` above the retention level, or more retained effects than tests.
    """
    provenance = dict(provenance or {})
    retention = float(provenance.get("retention", RETENTION))
    if rule.max_q is not None and rule.max_q > retention:
        raise ScircuitError(
            f"max_q is {rule.max_q} but the trace kept only tests with p <= {retention}; "
            f"lower max_q to {retention} or trace again with a higher retention level."
        )
    effects = conform(effects, EFFECTS, "effects")
    tests = conform(tests, TESTS, "tests")
    kept = provenance.get("kept_abs_d")
    if rule.max_q is None and (kept is None or kept > rule.min_abs_d):
        _warn_of_lost_tests(tests, rule, retention)

    found = {name: _reproducible(effects, tests, name, rule) for name in ("latent", "random")}
    told = graded(pd.concat(found.values(), ignore_index=True), tests, rule, scales)
    latent = (told.edges["kind"] == "latent").to_numpy()
    columns = [c for c in told.edges.columns if c not in CONTROLS and c != "kind"]
    edges, controls = (
        _in_order(told.edges.loc[chosen], list(schema) + columns)
        for chosen, schema in ((latent, EDGES), (~latent, CONTROLS))
    )
    provenance |= {
        "thresholds": asdict(rule),
        "grade": told.grade,
        "grades": headline(edges, controls, tests, told.grade),
        "retention": retention,
        "n_tests": n_made(tests, "latent"),
        "n_control_tests": n_made(tests, "random"),
        "n_edges": int(at_least(edges, told.grade).sum()),
        "n_skewed": _skewed(effects, tests, edges, rule),
    }
    return Circuit(
        edges=edges,
        nodes=_nodes(features, tests),
        tests=tests,
        controls=controls,
        terms=conform(terms, TERMS, "terms"),
        provenance=provenance,
    )


def _reproducible(effects: pd.DataFrame, tests: pd.DataFrame, name: str, rule: EdgeRule) -> pd.DataFrame:
    """The rows of one family that pass the first claim, with their q-values."""
    family, n_tests = effects.loc[of_family(effects, name)], n_made(tests, name)
    if len(family) > n_tests:
        raise ScircuitError(
            f"effects holds {len(family)} tests of kind {name} but tests counts only {n_tests}; "
            "the two tables come from different traces."
        )
    q = rule.q_values(family, n_tests)
    passes = rule.passes(family, q=q)
    consistency = rule.agreement(family).astype(np.float32)
    chosen = family.loc[passes].assign(q_value=q[passes], consistency=consistency[passes])
    return chosen if rule.top_k is None else _strongest(chosen, rule.top_k)


def _skewed(effects: pd.DataFrame, tests: pd.DataFrame, edges: pd.DataFrame, rule: EdgeRule) -> int | None:
    """How many of the edges rest on skewed responses: the same rule with `allow_for_skew` does not call them."""
    own = effects.loc[of_family(effects, "latent")]
    if rule.max_q is None or np.isnan(unskewed(own)).any():
        return None
    q = replace(rule, allow_for_skew=True).q_values(own, n_made(tests, "latent"))
    allowed = pd.MultiIndex.from_frame(own.loc[q < rule.max_q, ENDS])
    return int((~pd.MultiIndex.from_frame(edges[ENDS]).isin(allowed)).sum())


def _in_order(edges: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    order = ["source_layer", "source_feature", "draw", "target_layer", "target_feature"]
    return edges.sort_values(order, ignore_index=True)[columns]


def _strongest(edges: pd.DataFrame, k: int) -> pd.DataFrame:
    ranked = edges.assign(_size=edges["cohens_d"].abs()).sort_values(
        ["_size", "target_feature"], ascending=[False, True], kind="stable"
    )
    rank = ranked.groupby([*SOURCE, "target_layer", "draw"], observed=True).cumcount()
    return ranked.loc[rank < k].drop(columns="_size")


def _nodes(features: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    sources = tests.loc[tests["kind"] == "latent", SOURCE].drop_duplicates()
    is_source = pd.MultiIndex.from_frame(features[["layer", "feature"]]).isin(pd.MultiIndex.from_frame(sources))
    nodes = conform(features.assign(is_source=is_source), NODES, "features")
    return nodes[list(NODES)].sort_values(["layer", "feature"], ignore_index=True)


def _warn_of_lost_tests(tests: pd.DataFrame, rule: EdgeRule, retention: float) -> None:
    """Without a test in the rule, sources that fire in few cells may have edges the trace did not keep."""
    n = tests["n_cells"].to_numpy(dtype=np.float64)
    d_sq = rule.min_abs_d**2
    p_at_threshold = screen_p(n, n * rule.min_abs_d, (n - 1) + n * d_sq)
    lost = int(((p_at_threshold > retention) & (n > 1)).sum())
    if lost:
        logger.warning(
            "the rule asks for no significance, but the trace kept only p <= %g: %d of %d rows of its test "
            'table have too few cells for every |d| > %g to have been kept; trace with edges.max_q = "null" for all.',
            retention,
            lost,
            len(tests),
            rule.min_abs_d,
        )
