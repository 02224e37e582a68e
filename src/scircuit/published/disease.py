"""The published disease analysis, for comparison: keyword sets, genes pooled per label, no correction.

Its enrichment grows with the number of latents that carry a label, and so does a label's number of edges: "disease
labels are more central and more conserved" follows from the construction. `scircuit.analysis.disease` is the default.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom, mannwhitneyu

from scircuit.analysis.conditions import LabelledEdges, check_conditions, label_codes, label_vocabulary
from scircuit.analysis.question import Question
from scircuit.analysis.regression import raw_odds_ratio
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.errors import ScircuitError

KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "DNA damage repair": ("dna repair", "dna damage", "dna integrity", "double-strand break"),
    "cell cycle": (
        "mitotic cell cycle", "cell cycle checkpoint", "cell division", "chromosome segregation", "sister chromatid",
    ),
    "apoptosis": ("apoptotic process", "programmed cell death", "apoptotic signaling"),
    "immune response": (
        "immune response", "inflammatory response", "interferon", "cytokine", "antigen", "toll-like receptor",
        "nf-kappab", "t cell activation", "b cell activation",
    ),
    "metabolism": (
        "glycolytic process", "oxidative phosphorylation", "cholesterol biosynthesis", "fatty acid metabolic",
    ),
    "transcription regulation": (
        "regulation of transcription", "chromatin remodeling", "histone modification", "epigenetic",
    ),
    "oncogenic signalling": (
        "mapk cascade", "ras protein signal", "wnt signaling", "notch signaling", "hedgehog signaling", "jak-stat",
        "pi3k", "mtor",
    ),
    "protein quality": (
        "unfolded protein response", "er stress", "protein folding", "ubiquitin-dependent", "proteasome", "autophagy",
    ),
    "angiogenesis": ("angiogenesis", "blood vessel", "vasculogenesis", "vegf"),
    "metastasis": (
        "cell migration", "cell adhesion", "epithelial to mesenchymal", "extracellular matrix", "integrin",
    ),
}  # fmt: skip
"""Substrings of GO term names behind each published category (arXiv 2603.01752, phase 6)."""

_TOP = 20


def keyword_sets(gene_sets: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Union of the terms whose name contains a keyword, per category; categories without a term are left out."""
    found = {}
    for category, words in KEYWORDS.items():
        terms = [term for term in gene_sets if any(word in term.lower() for word in words)]
        if terms:
            found[category] = {gene for term in terms for gene in gene_sets[term]}
    if not found:
        raise ScircuitError("no term contains a keyword of the published categories; give the GO biological processes.")
    return found


def disease_paper(conditions: Sequence[Artefacts], gene_sets: Mapping[str, Sequence[str]]) -> Result:
    """The published rule: labels enriched at p < 0.05 uncorrected, their edges, and their consensus odds ratio.

    A label's genes are the union of the top 20 genes of all latents that carry it, the background the union over
    labels; a label is a disease label if Fisher's one-sided p < 0.05 for any category.

    Measures `disease_label_share` (null 0.05), `median_edges_ratio` (disease over other labels, Mann-Whitney p) and
    `raw_odds_ratio` of conserved label pairs with disease at both ends. Table: `label, n_latents, n_genes, n_edges,
    is_disease, categories`.
    """
    models = check_conditions(conditions)
    categories = keyword_sets(gene_sets)
    labels = label_vocabulary([condition.circuit() for condition in conditions])
    n = len(labels)
    genes: list[set[str]] = [set() for _ in range(n)]
    n_latents, n_edges = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    found = np.zeros((len(models), n * n), dtype=bool)
    for condition in conditions:
        code = label_codes(condition.circuit(), labels)
        for label, top in zip(code, condition.circuit().nodes["top_genes"], strict=True):
            if label >= 0:
                genes[label] |= set(list(top)[:_TOP])
                n_latents[label] += 1
        edges = LabelledEdges.of(condition.circuit(), labels)
        n_edges += np.bincount(edges.source, minlength=n) + np.bincount(edges.target, minlength=n)
        found[models.index(condition.model_name), edges.source * n + edges.target] = True
    background = set().union(*genes)
    hits: list[list[str]] = [[] for _ in range(n)]
    for category, members in categories.items():
        own = members & background
        overlap = np.array([len(own & label_genes) for label_genes in genes])
        size = np.array([len(label_genes) for label_genes in genes])
        p = hypergeom.sf(overlap - 1, len(background), len(own), size)
        for label in np.flatnonzero((p < 0.05) & (overlap > 0)):
            hits[label].append(category)
    ill = np.array([bool(listed) for listed in hits])
    pair = np.flatnonzero(found.any(axis=0))
    odds = raw_odds_ratio(found[:, pair].sum(axis=0) >= 2, ill[pair // n] & ill[pair % n])
    medians = [float(np.median(n_edges[side])) if side.any() else np.nan for side in (ill, ~ill)]
    both = ill.any() and not ill.all()
    p_edges = float(mannwhitneyu(n_edges[ill], n_edges[~ill], alternative="greater").pvalue) if both else np.nan
    ratio = medians[0] / medians[1] if medians[1] > 0 else np.nan
    measures = [
        Measure("disease_label_share", float(ill.mean()), null=0.05, n=n, unit_of_n="labels"),
        Measure("median_edges_ratio", ratio, null=1.0, p_value=p_edges, n=n, unit_of_n="labels"),
        odds.measure("raw_odds_ratio", "pairs"),
    ]
    table = pd.DataFrame(
        {
            "label": labels.to_numpy(),
            "n_latents": n_latents,
            "n_genes": [len(label_genes) for label_genes in genes],
            "n_edges": n_edges,
            "is_disease": ill,
            "categories": ["; ".join(listed) for listed in hits],
        }
    )
    return QUESTION.answer(measures, table)


QUESTION = Question(
    asks="Keyword sets, pooled genes, no correction: shown for comparison only.",
    title="Disease between models, as published",
    function=disease_paper,
    definition="disease_paper/1",
    null_model="none in the published definition; the null column holds what no enrichment would give",
    glossary="disease label: one whose pooled top genes overlap a keyword set at p < 0.05, uncorrected; the pool grows "
    "with the label's number of latents, and so does its number of edges.",
    figure="ratios",
    marks="Ratios with 95% intervals; dashed: 1, no difference.",
    words={
        "disease_label_share": "labels called disease labels",
        "median_edges_ratio": "edges of disease labels over others, medians",
        "raw_odds_ratio": "odds ratio of conservation, raw",
    },
    of_runs=True,
)
