"""Profiles: the corrected and the published definitions, computed from one trace, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from scircuit.analysis import paper
from scircuit.analysis.attenuation import attenuation
from scircuit.analysis.coherence import coherence
from scircuit.analysis.effect_sizes import effect_sizes
from scircuit.analysis.hubs import degrees
from scircuit.analysis.nodes import sizes
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.sign_balance import sign_balance
from scircuit.circuits.build import DEFAULT, PAPER, EdgeRule, build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError


@dataclass(frozen=True)
class Profile:
    """A named set of definitions.

    `rule` says what is an edge, `description` what the profile is for.
    """

    name: str
    rule: EdgeRule
    description: str


PROFILES: Mapping[str, Profile] = {
    "default": Profile("default", DEFAULT, "Calibrated tests over every response, silent cells abstain, no cap."),
    "paper": Profile("paper", PAPER, "The published rules, silent cells counting as negative, top 50 per source."),
}


def profile(name: str) -> Profile:
    """The profile of that name; an unknown one is refused."""
    if name not in PROFILES:
        raise ScircuitError(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}.")
    return PROFILES[name]


def paper_numbers(truncated: Circuit, untruncated: Circuit, annotations: pd.DataFrame | None = None) -> Result:
    """The published headline numbers of a circuit.

    Parameters
    ----------
    truncated : Circuit
        Edges under `PAPER`: every published aggregate but attenuation, density and out-degree uses these.
    untruncated : Circuit
        The same without the cap of 50.
    annotations : DataFrame, optional
        `layer, feature, term` with the pseudo-terms of the published annotation; the circuit's own
        significant sets where there are none.

    Returns
    -------
    Result
        Measures `n_edges, n_edges_untruncated, inhibitory_share, mean_abs_d, share_abs_d_above_1, coherence,
        mean_edges_per_source, largest_out_degree, n_targets`; none has an interval or a null, as published.
        Table: attenuation, one row per (source layer, distance).
    """
    edges = truncated.edges
    size = pd.Series(sizes(edges))
    terms = truncated.terms if annotations is None else annotations
    per_source = untruncated.edges.groupby(["source_layer", "source_feature"]).size()
    n = len(edges)
    values = {
        "inhibitory_share": paper.inhibitory_share(edges) if n else np.nan,
        "n_edges": n,
        "n_edges_untruncated": len(untruncated.edges),
        "mean_abs_d": float(size.mean()) if n else np.nan,
        "share_abs_d_above_1": float((size > 1).mean()) if n else np.nan,
        "coherence": paper.coherence(edges, terms),
        "mean_edges_per_source": float(per_source.mean()) if len(per_source) else np.nan,
        "largest_out_degree": int(per_source.max()) if len(per_source) else 0,
        "n_targets": len(edges[["target_layer", "target_feature"]].drop_duplicates()),
    }
    return Result.of(
        "paper",
        "paper/arXiv:2603.01752",
        [Measure(name, value, n=n) for name, value in values.items()],
        paper.attenuation(untruncated.edges),
        "none was published",
        ["supporting", "d"],
    )


def published_numbers(
    effects: pd.DataFrame,
    tests: pd.DataFrame,
    features: pd.DataFrame,
    terms: pd.DataFrame,
    provenance: Mapping[str, Any] | None = None,
    annotations: pd.DataFrame | None = None,
) -> Result:
    """`paper_numbers` of a trace, whose tables are those of `scircuit.circuits.build.build_circuit`."""
    truncated, untruncated = (
        build_circuit(effects, tests, features, terms, rule, provenance) for rule in (PAPER, replace(PAPER, top_k=None))
    )
    return paper_numbers(truncated, untruncated, annotations)


_DIFFERENCES = {
    "edges": "Ours asks for a calibrated test over all responses and caps nothing; the published list is cut at "
    "50 per source and layer, so its length mostly counts caps.",
    "supporting share": "The published consistency counts silent cells as negative and so keeps falling targets "
    "more readily than rising ones; its word for them, inhibitory, reads the wrong way round.",
    "mean |d|": "The published mean is over the 50 largest of each source and layer, so it grows with the number "
    "of latents that were ranked.",
    "coherence": "The published share has no null and counts pseudo-terms; ours is a fold over targets of equal "
    "layer, firing rate and number of sets.",
    "decay per layer": "The published curve counts edges per source that has any; ours is a rate per test made, "
    "with one level per source layer.",
    "largest out-degree": "Both are uncapped here; ours counts calibrated edges only.",
}


def compare_profiles(
    effects: pd.DataFrame,
    tests: pd.DataFrame,
    features: pd.DataFrame,
    terms: pd.DataFrame,
    provenance: Mapping[str, Any] | None = None,
    annotations: pd.DataFrame | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Both profiles of one trace side by side.

    Parameters
    ----------
    effects, tests, features, terms, provenance
        As for `scircuit.circuits.build.build_circuit`.
    annotations : DataFrame, optional
        As for `paper_numbers`.
    draws : int
        Bootstrap and null draws.
    seed : int

    Returns
    -------
    DataFrame
        One row per question: `number, default, default_low, default_high, default_null, paper,
        difference` (one sentence on what differs).
    """
    ours = build_circuit(effects, tests, features, terms, DEFAULT, provenance)
    published = published_numbers(effects, tests, features, terms, provenance, annotations)
    rows: list[dict[str, object]] = [
        {"number": "edges", "default": len(ours.edges), "paper": published["n_edges"].estimate}
    ]
    if not ours.edges.empty:
        rows += [
            _row("supporting share", sign_balance(ours, draws, seed).headline, published["inhibitory_share"]),
            _row("mean |d|", effect_sizes(ours, draws, seed).headline, published["mean_abs_d"]),
            _row("coherence", _coherent_share(ours, draws, seed), published["coherence"]),
            _row("decay per layer", attenuation(ours, draws, seed).headline, _published_decay(published.table)),
            {
                "number": "largest out-degree",
                "default": int(degrees(ours)["out_degree"].max()),
                "paper": published["largest_out_degree"].estimate,
            },
        ]
    columns = ["number", "default", "default_low", "default_high", "default_null", "paper"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(difference=table["number"].map(_DIFFERENCES))


def _row(number: str, ours: Measure, theirs: Measure) -> dict[str, object]:
    return {
        "number": number,
        "default": ours.estimate,
        "default_low": ours.low,
        "default_high": ours.high,
        "default_null": ours.null,
        "paper": theirs.estimate,
    }


def _coherent_share(circuit: Circuit, draws: int, seed: int) -> Measure:
    try:
        return coherence(circuit, draws, seed)["coherent_share"]
    except ScircuitError:
        return Measure("coherent_share", np.nan)


def _published_decay(curve: pd.DataFrame) -> Measure:
    """Minus the mean slope of the logged published curves, the form nearest to our decay rate."""
    slopes = [
        np.polyfit(c["distance"], np.log(c["mean_edges"]), 1)[0] for _, c in curve.groupby("source_layer") if len(c) > 1
    ]
    return Measure("decay_rate", -float(np.mean(slopes)) if slopes else np.nan)
