"""One function per figure: tidy tables or a `Result` in, matplotlib axes out, in the style of `scanpy.pl`.

A figure that is called as a question draws the answer to it. All take `ax`, `show` and `save` (`canvas.Where`).
"""

from scircuit.report.figures.answers import attenuation, coactivation, coherence, effect_sizes, hubs, sign_balance
from scircuit.report.figures.robustness import (
    coexpression,
    compare_effect_sizes,
    group_stability,
    interactions,
    mediation,
    replication,
    seed_stability,
    selection,
    stability,
    threshold_sweep,
)
from scircuit.report.figures.run import QUALITY, circuit, layer_pairs, sae_quality
from scircuit.report.figures.whole import circuit_curve, circuit_tests, faithfulness
from scircuit.report.figures.world import consensus, feature_consensus, hierarchy, measures, ratios, shares, validation

__all__ = [
    "QUALITY",
    "attenuation",
    "circuit",
    "circuit_curve",
    "circuit_tests",
    "coactivation",
    "coexpression",
    "coherence",
    "compare_effect_sizes",
    "consensus",
    "effect_sizes",
    "faithfulness",
    "feature_consensus",
    "group_stability",
    "hierarchy",
    "hubs",
    "interactions",
    "layer_pairs",
    "measures",
    "mediation",
    "ratios",
    "replication",
    "sae_quality",
    "seed_stability",
    "selection",
    "shares",
    "sign_balance",
    "stability",
    "threshold_sweep",
    "validation",
]
