"""One function per figure: tidy tables or a `Result` in, matplotlib axes out, in the style of `scanpy.pl`."""

from scircuit.report.figures.answers import attenuation, coactivation, coherence, effect_sizes, hubs, sign_balance
from scircuit.report.figures.robustness import (
    coexpression,
    compare_effect_sizes,
    group_stability,
    interactions,
    mediation,
    seed_stability,
    selection,
    stability,
    threshold_sweep,
)
from scircuit.report.figures.run import QUALITY, circuit, layer_pairs, sae_quality

__all__ = [
    "QUALITY",
    "attenuation",
    "circuit",
    "coactivation",
    "coexpression",
    "coherence",
    "compare_effect_sizes",
    "effect_sizes",
    "group_stability",
    "hubs",
    "interactions",
    "layer_pairs",
    "mediation",
    "sae_quality",
    "seed_stability",
    "selection",
    "sign_balance",
    "stability",
    "threshold_sweep",
]
