"""The published definitions (arXiv 2603.01752), as they were computed, for comparison with ours.

Edges are those of the rule `PAPER`; `scircuit.published.side_by_side` puts both definitions beside each other and says
what differs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.schema import ENDS, LATENT, LAYER_PAIR, SOURCE, TARGET

PAPER = EdgeRule(
    max_q=None, min_nonzero=0, consistency="zero_as_negative", top_k=50, min_effect_sd=None, max_q_specific=None
)
"""The published rule: no test, zeros count as negative, top 50 per source and layer; no claim of size or of
specificity."""
SOURCE_LIBRARIES = ("GO_BP", "KEGG", "Reactome")
TARGET_LIBRARY = "GO_BP"
"""Libraries that label sources, and the one that labels targets."""
UNKNOWN_SOURCE, UNKNOWN_TARGET = "unknown", "unannotated"
"""What a latent without a label is called as a source and as a target."""


def inhibitory_share(edges: pd.DataFrame) -> float:
    """Share of the (truncated) edges with d < 0; the published word for what we call supporting."""
    return float((edges["cohens_d"] < 0).mean())


def labels(
    annotations: pd.DataFrame,
    source_libraries: Sequence[str] = SOURCE_LIBRARIES,
    target_libraries: Sequence[str] = (TARGET_LIBRARY,),
) -> pd.DataFrame:
    """`source_label` and `target_label` of every latent, NaN where a rule finds none; indexed by (layer, feature).

    A source is called by its first annotation in file order, a target by the one with the smallest q, the first in
    file order among equals. `annotations` has `layer, feature, library, term, q_value` of all latents, in file order.
    """
    source = annotations[annotations["library"].isin(source_libraries)].groupby(LATENT, sort=False)["term"].first()
    go = annotations[annotations["library"].isin(target_libraries)].sort_values("q_value", kind="stable")
    target = go.groupby(LATENT, sort=False)["term"].first()
    return pd.DataFrame({"source_label": source, "target_label": target})


def called(latents: pd.DataFrame, labels: pd.Series, unknown: str) -> np.ndarray:
    """The label of each latent (its layer and feature), object `[latent]`; `unknown` where there is none."""
    return labels.reindex(pd.MultiIndex.from_frame(latents)).fillna(unknown).to_numpy(dtype=object)


def annotated_edges(edges: pd.DataFrame, annotations: pd.DataFrame) -> tuple[int, int]:
    """Edges with at least one term at both ends, and those of them whose ends share one.

    `annotations` has `layer, feature, term` and holds every ontology, pseudo-terms (`pairwise_enrichment`,
    `transcription_factors`) included, as the published rule does.
    """
    terms = {key: set(group) for key, group in annotations.groupby(LATENT)["term"]}
    both = shared = 0
    for source_layer, source, target_layer, target in edges[ENDS].itertuples(index=False):
        first, second = terms.get((source_layer, source)), terms.get((target_layer, target))
        if first and second:
            both += 1
            shared += bool(first & second)
    return both, shared


def coherence(edges: pd.DataFrame, annotations: pd.DataFrame) -> float:
    """Share of the edges annotated at both ends whose ends share a term; NaN without any. See `annotated_edges`."""
    both, shared = annotated_edges(edges, annotations)
    return shared / both if both else np.nan


def attenuation(edges: pd.DataFrame) -> pd.DataFrame:
    """Mean number of significant targets by depth distance, over the sources with any edge at all.

    `edges` is the untruncated set. Returns `source_layer, distance, mean_edges, normalised` (over the
    largest mean of the source layer); a source without edges at a distance counts as 0 there.
    """
    table = edges.assign(distance=edges["target_layer"].astype(int) - edges["source_layer"].astype(int))
    n_sources = table.groupby("source_layer")["source_feature"].nunique()
    counts = table.groupby(["source_layer", "distance"]).size().rename("n").reset_index()
    counts["mean_edges"] = counts["n"] / counts["source_layer"].map(n_sources)
    largest = counts.groupby("source_layer")["mean_edges"].transform("max")
    return counts.assign(normalised=counts["mean_edges"] / largest).drop(columns="n")


def density(edges: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """Mean number of untruncated edges per traced source, for each layer pair: `..., edges_per_source`."""
    own = tests.loc[tests["kind"] == "latent"]
    n_sources = own.drop_duplicates([*SOURCE, "target_layer"]).groupby(LAYER_PAIR).size()
    n_edges = edges.groupby(LAYER_PAIR).size().reindex(n_sources.index, fill_value=0)
    return (n_edges / n_sources).rename("edges_per_source").reset_index()


class Overlap(NamedTuple):
    """Causal edges against saved PMI edges: pairs in common, and causal targets that are any PMI target."""

    exact_pairs: int
    target_overlap: float


def pmi_overlap(edges: pd.DataFrame, pmi_edges: pd.DataFrame) -> Overlap:
    """Number of shared (source, target) pairs, and |causal targets in PMI targets| / |causal targets|."""

    def keys(table: pd.DataFrame, columns: list[str]) -> set[tuple[int, ...]]:
        return set(table[columns].itertuples(index=False, name=None))

    causal = keys(edges, TARGET)
    known = causal & keys(pmi_edges, TARGET)
    both = keys(edges, ENDS) & keys(pmi_edges, ENDS)
    return Overlap(len(both), len(known) / len(causal) if causal else np.nan)


def saved_pmi_edges(
    pairs: pd.DataFrame, min_count: int = 100, per_source: int = 50, n_sources: int = 500
) -> pd.DataFrame:
    """The pairs that the published co-activation graph kept, layer pair by layer pair.

    Pairs that fire together at least `min_count` times; of every source the `per_source` of largest PMI; of these the
    `n_sources` sources with the largest PMI. `pairs` has the ends, `n_both` and `pmi`.
    """
    by_source = [*LAYER_PAIR, "source_feature"]
    often = pairs[pairs["n_both"] >= min_count].sort_values("pmi", ascending=False, kind="stable")
    kept = often[often.groupby(by_source).cumcount() < per_source]
    # Sorted by PMI, so a source's first row holds its largest.
    best = kept.drop_duplicates(by_source)
    chosen = best.loc[best.groupby(LAYER_PAIR).cumcount() < n_sources, by_source]
    return kept.merge(chosen, on=by_source)


def d_ratios(effects: pd.DataFrame, sets: pd.DataFrame) -> pd.DataFrame:
    """|d_S| / sum of the members' |d_i| for every subset of two or more and every target (arXiv 2603.11940).

    d over all cells in which any member fires, silent ones as 0; only where the denominator exceeds 0.01, and where
    any subset of the set responds. Columns `set_id, subset, order, target_layer, target_feature, ratio`.
    """
    key = ["set_id", "target_layer", "target_feature"]
    n = effects["set_id"].map(sets.groupby("set_id")["n_cells"].first()).to_numpy(np.float64)
    delta = effects["delta"].to_numpy(np.float64)
    sums = effects[[*key, "subset"]].assign(n=n, total=delta, square=delta**2)
    sums = sums.groupby([*key, "subset"]).agg({"n": "first", "total": "sum", "square": "sum"}).reset_index()
    mean = sums["total"] / sums["n"]
    spread = np.sqrt(np.maximum(sums["square"] - sums["n"] * mean**2, 0) / np.maximum(sums["n"] - 1, 1))
    sums["d"] = np.abs(mean) / np.maximum(spread, 1e-10)
    wide = sums.pivot(index=key, columns="subset", values="d").fillna(0.0)
    rows = []
    members = sets.groupby("set_id").size().reindex(wide.index.get_level_values("set_id")).to_numpy()
    for subset in [int(s) for s in wide.columns if int(s).bit_count() > 1]:
        parts = [1 << i for i in range(subset.bit_length()) if subset >> i & 1]
        own = wide.loc[subset < (1 << members)]
        bottom = own.reindex(columns=parts, fill_value=0.0).sum(axis=1)
        ratio = (own[subset] / bottom)[bottom > 0.01]
        rows.append(ratio.rename("ratio").reset_index().assign(subset=subset, order=subset.bit_count()))
    columns = ["set_id", "subset", "order", *key[1:], "ratio"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)
