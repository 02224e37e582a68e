"""The corrected and the published numbers, computed from one trace, side by side."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from scircuit.analysis.attenuation import attenuation
from scircuit.analysis.coactivation import coactivation
from scircuit.analysis.coherence import coherence
from scircuit.analysis.effect_sizes import effect_sizes
from scircuit.analysis.hubs import degrees
from scircuit.analysis.interactions import interactions
from scircuit.analysis.nodes import NodeIndex
from scircuit.analysis.result import Measure
from scircuit.analysis.sign_balance import sign_balance
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import DEFAULT
from scircuit.errors import ScircuitError
from scircuit.published import questions as published
from scircuit.published.questions import Traced

_DIFFERENCES = {
    "edges": "Ours asks for a calibrated test over all responses and caps nothing; the published list is cut at "
    "50 per source and layer, so its length mostly counts caps.",
    "supporting share": "The published consistency counts silent cells as negative and so keeps falling targets "
    "more readily than rising ones; its word for them, inhibitory, reads the wrong way round.",
    "mean |d|": "The published mean is over the 50 largest of each source and layer, so it grows with the number "
    "of latents that were ranked.",
    "coherence": "The published share has no null and counts pseudo-terms; ours stands beside the share of targets of "
    "equal layer, firing rate and number of sets.",
    "labelled edges": "The published labels are the first set in file order for sources and the best GO term for "
    "targets, annotated against a small background; ours is one rule for both ends against all genes of the run.",
    "decay per layer": "The published curve counts edges per source that has any; ours is a rate per test made, "
    "with one level per source layer.",
    "largest out-degree": "The published degree is counted after the cut at 50 per source and layer; ours is uncapped.",
    "co-activation": "The published overlap is the share of targets that are any target in a PMI graph, so it grows "
    "with that graph whatever the pairs; ours is the area under the curve against pairs of equal firing rate, 0.5 by "
    "chance.",
    "norm ratio of pairs": "The published ratio divides standardised effects, which gives 0.71 for independent "
    "effects; ours divides mean responses, which gives 1.",
}


def compare_profiles(
    run: Artefacts, annotations: pd.DataFrame | None = None, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Both profiles of one trace side by side, one row per question.

    Columns `number, default, default_low, default_high, default_null, paper, difference` (one sentence on what
    differs). There are rows of co-activation and interactions where the run has their tables; `annotations` are the
    published ones (`scircuit.published.questions.coherence`).
    """
    ours, theirs = run.circuit(DEFAULT), Traced.of(run)
    rows = [_row("edges", Measure("n_edges", len(ours.edges)), published.sign_balance(theirs)["n_edges"])]
    if not ours.edges.empty:
        rows += [
            _row("supporting share", sign_balance(ours, draws, seed).headline, published.sign_balance(theirs).headline),
            _row("mean |d|", effect_sizes(ours).headline, published.effect_sizes(theirs).headline),
            *_coherence_rows(ours, theirs, annotations, draws, seed),
            _row(
                "decay per layer",
                attenuation(ours, draws, seed).headline,
                _published_decay(published.attenuation(theirs).table),
            ),
            _row(
                "largest out-degree",
                Measure("largest_out_degree", int(degrees(ours)["out_degree"].max())),
                published.hubs(theirs)["largest_out_degree"],
            ),
        ]
        if run.has("coactivation"):
            pairs = run.table("coactivation")
            auc = _answer_or_nothing(lambda: coactivation(ours, pairs, seed=seed).headline)
            rows.append(_row("co-activation", auc, published.coactivation(theirs, pairs)["target_overlap"]))
    if run.has("interactions"):
        sets = run.table("interactions"), run.table("interaction_sets")
        ratio = interactions(*sets, draws=draws, seed=seed)["norm_ratio_2"]
        rows.append(_row("norm ratio of pairs", ratio, published.interactions(*sets)["ratio_2"]))
    table = pd.DataFrame(rows)
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


def _coherence_rows(
    ours: Circuit, theirs: Traced, annotations: pd.DataFrame | None, draws: int, seed: int
) -> list[dict[str, object]]:
    found = published.coherence(theirs, annotations)
    share = _answer_or_nothing(lambda: coherence(ours, draws, seed)["coherent_share"])
    rows = [_row("coherence", share, found["coherence"])]
    if annotations is not None:
        index, named = NodeIndex.of(ours.nodes), (ours.nodes["n_terms"] > 0).to_numpy()
        both = named[index.sources(ours.edges)] & named[index.targets(ours.edges)]
        rows.append(_row("labelled edges", Measure("labelled", float(both.mean())), found["annotation_rate"]))
    return rows


def _answer_or_nothing(ask: Callable[[], Measure]) -> Measure:
    """The answer, or NaN where the circuit has none (no annotated ends, no matched pairs)."""
    try:
        return ask()
    except ScircuitError:
        return Measure("none", np.nan)


def _published_decay(curve: pd.DataFrame) -> Measure:
    """Minus the mean slope of the logged published curves, the form nearest to our decay rate."""
    curve = curve.dropna(subset=["mean_edges"])
    slopes = [
        np.polyfit(c["distance"], np.log(c["mean_edges"]), 1)[0] for _, c in curve.groupby("source_layer") if len(c) > 1
    ]
    return Measure("decay_rate", -float(np.mean(slopes)) if slopes else np.nan)
