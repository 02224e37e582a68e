"""CRISPR screens: streamed cells, differential expression, gene-level predictions of a circuit, validation.

Example::

    screen = effective(open_screen("screen.h5ad", lines="k562"))
    effects = differential_expression(screen, cache="cache")
    predictions = predict_from_loadings(circuit.edges, genes)
    validate(predictions, truth_from_effects(effects), screen).sentences
"""

from scircuit.perturbation.differential import Effects, differential_expression
from scircuit.perturbation.opening import open_screen
from scircuit.perturbation.predictions import (
    GenePredictions,
    predict_from_loadings,
    predict_from_logits,
)
from scircuit.perturbation.screen import Screen
from scircuit.perturbation.statistics import effective, on_target
from scircuit.perturbation.truth import Truth, truth_from_effects, truth_from_gene_sets, truth_from_table
from scircuit.perturbation.validation import Validation, validate

__all__ = [
    "Effects",
    "GenePredictions",
    "Screen",
    "Truth",
    "Validation",
    "differential_expression",
    "effective",
    "on_target",
    "open_screen",
    "predict_from_loadings",
    "predict_from_logits",
    "truth_from_effects",
    "truth_from_gene_sets",
    "truth_from_table",
    "validate",
]
