"""Published numbers of all conditions pooled: gene pairs, and the disease categories of labels. No torch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scircuit.analysis.conditions import Condition
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import SOURCE, TARGET
from scircuit.errors import ScircuitError
from scircuit.perturbation.predictions import paper_gene_pairs
from scircuit.published.disease import KEYWORDS

DEFINITION = "paper/arXiv:2603.01752"
_APART = 10_000
"""Added to the layers of each further condition, so that latents of different dictionaries stay different."""


def with_genes(circuit: Circuit) -> pd.DataFrame:
    """Nodes that a gene set names: the published study kept gene lists of annotated latents only."""
    return circuit.nodes[circuit.nodes["n_terms"] > 0]


def gene_pair_numbers(conditions: Sequence[Condition]) -> Result:
    """Edges whose two ends have genes, and gene pairs kept, over the edges of all conditions together.

    As in arXiv 2603.01752, predictions.

    Measures `edges_with_genes` and `kept` (pairs of two edges or more, or of one with |d| above 2). Table: the kept
    pairs.
    """
    edges, nodes = [], []
    for number, condition in enumerate(conditions):
        apart = _APART * number
        own, named = condition.circuit.edges, with_genes(condition.circuit)
        moved = {end[0]: own[end[0]].astype(int) + apart for end in (SOURCE, TARGET)}
        edges.append(own.assign(**moved)[[*SOURCE, *TARGET, "cohens_d"]])
        nodes.append(named.assign(layer=named["layer"].astype(int) + apart)[["layer", "feature", "top_genes"]])
    edge, node = pd.concat(edges, ignore_index=True), pd.concat(nodes, ignore_index=True)
    known = pd.MultiIndex.from_frame(node[["layer", "feature"]])
    both = pd.Series(True, index=edge.index)
    for end in (SOURCE, TARGET):
        both &= pd.MultiIndex.from_frame(edge[end]).isin(known)
    if not both.any():
        raise ScircuitError("no edge has a latent that a gene set names at both ends, so no genes are paired.")
    pairs, n = paper_gene_pairs(edge[both], node), int(both.sum())
    measures = [Measure("edges_with_genes", n, n=len(edge)), Measure("kept", len(pairs), n=n)]
    return Result.of("gene_pairs", DEFINITION, measures, pairs, "none was published", ["d"])


def disease_categories(compared: Path, labels: Result) -> Result:
    """Per published disease category: its labels, the edges between two of them, and those of conserved pairs.

    From `compare/paper/disease_paper.parquet` and the pooled label pairs of the published rule (`label_numbers`).
    Measures `CATEGORY_labels, CATEGORY_edges, CATEGORY_conserved_edges, CATEGORY_mean_abs_d`, blanks as underscores.
    """
    file = compared / "paper" / "disease_paper.parquet"
    if not file.is_file():
        raise ScircuitError(
            "there are no published disease labels: compare/answers.parquet says why they were refused."
        )
    ill = pd.read_parquet(file, columns=["label", "categories"]).set_index("label")["categories"].str.split("; ")
    pairs = labels.table
    shared = pairs.groupby(["source_label", "target_label"])["model"].transform("nunique") >= 2
    rows, measures = [], []
    for category in KEYWORDS:
        members = set(ill.index[[category in found for found in ill]])
        inside = pairs["source_label"].isin(members) & pairs["target_label"].isin(members)
        n = pairs.loc[inside, "n_edges"]
        total = (n * pairs.loc[inside, "mean_abs_d"]).sum()
        found = {
            "labels": len(members),
            "edges": int(n.sum()),
            "conserved_edges": int(pairs.loc[inside & shared, "n_edges"].sum()),
            "mean_abs_d": float(total / n.sum()) if n.sum() else float("nan"),
        }
        rows.append({"category": category, **found})
        name = category.replace(" ", "_")
        measures += [Measure(f"{name}_{key}", value, n=len(ill), unit_of_n="labels") for key, value in found.items()]
    table = pd.DataFrame(rows)
    return Result.of("disease_categories", DEFINITION, measures, table, "none was published", ["d"])
