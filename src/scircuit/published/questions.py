"""The questions under their published definitions (arXiv 2603.01752): one function per question, from one trace.

None has an interval or a null, as published; `scircuit.published.side_by_side` puts them beside ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import sizes
from scircuit.analysis.registry import question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, LATENT, LAYER_PAIR, SOURCE, TARGET
from scircuit.errors import ScircuitError
from scircuit.published import definitions as paper
from scircuit.published.annotation_rule import annotate_run_as_published
from scircuit.published.definitions import PAPER, UNKNOWN_SOURCE, UNKNOWN_TARGET

DEFINITION = "paper/arXiv:2603.01752"
NO_NULL = "none was published"
TOP_HUBS, TOP_CIRCUITS = 20, 50


class Traced(NamedTuple):
    """The circuit of a trace under the published rule, cut at 50 targets per source and layer, and uncut."""

    truncated: Circuit
    untruncated: Circuit

    @classmethod
    def of(cls, run: Artefacts) -> "Traced":
        """Both circuits of a run's trace."""
        return cls(run.circuit(PAPER), run.circuit(replace(PAPER, top_k=None)))


def sign_balance(traced: Traced) -> Result:
    """Measures `inhibitory_share` (d < 0), `n_edges` (after the cut), `n_edges_untruncated`; table per layer pair."""
    edges = traced.truncated.edges
    table = edges[LAYER_PAIR].assign(inhibitory=edges["cohens_d"] < 0)
    table = table.groupby(LAYER_PAIR)["inhibitory"].agg(["size", "mean"])
    table = table.rename(columns={"size": "n_edges", "mean": "inhibitory_share"}).reset_index()
    values = {
        "inhibitory_share": paper.inhibitory_share(edges),
        "n_edges": len(edges),
        "n_edges_untruncated": len(traced.untruncated.edges),
    }
    return _result("sign_balance", values, len(edges), table, ["supporting", "d"])


def effect_sizes(traced: Traced) -> Result:
    """Measures `mean_abs_d, median_abs_d, share_abs_d_above_1` of the edges after the cut; table per layer pair."""
    edges = traced.truncated.edges
    size = pd.Series(sizes(edges))
    groups = size.groupby([edges[layer].to_numpy() for layer in LAYER_PAIR])
    table = groups.agg(["size", "mean", "median"]).rename_axis(LAYER_PAIR).reset_index()
    values = {
        "mean_abs_d": size.mean(),
        "median_abs_d": size.dropna().median(),
        "share_abs_d_above_1": (size > 1).mean() if len(size) else np.nan,
    }
    return _result("effect_sizes", values, len(edges), table.rename(columns={"size": "n_edges"}), ["d"])


def coherence(traced: Traced, annotations: pd.DataFrame | None = None) -> Result:
    """Share of edges whose ends share any term, pseudo-terms included, and how many edges carry the two labels.

    By the published annotations in file order, else by the circuit's own significant sets, and then without labels.
    Measures `coherence`, and with annotations `annotation_rate` (edges with a source label and a target label by the
    two published rules). Table: the 50 edges with most shared terms, then largest |d|.
    """
    edges = traced.truncated.edges
    terms = traced.truncated.terms if annotations is None else annotations
    values = {"coherence": paper.coherence(edges, terms)}
    table = edges[[*ENDS, "cohens_d"]].assign(n_shared=_n_shared(edges, terms))
    if annotations is not None:
        labels = paper.labels(annotations)
        source = paper.called(edges[SOURCE], labels["source_label"], UNKNOWN_SOURCE)
        target = paper.called(edges[TARGET], labels["target_label"], UNKNOWN_TARGET)
        both = (source != UNKNOWN_SOURCE) & (target != UNKNOWN_TARGET)
        values["annotation_rate"] = float(both.mean()) if len(edges) else np.nan
        table = table.assign(source_label=source, target_label=target)
    table = table.assign(size=sizes(edges)).sort_values(["n_shared", "size"], ascending=False, kind="stable")
    top = table.drop(columns="size").head(TOP_CIRCUITS).reset_index(drop=True)
    return _result("coherence", values, len(edges), top, ["coherence", "d"])


def attenuation(traced: Traced) -> Result:
    """Measure `mean_edges_per_source` (uncut, sources with any edge); table: the curve and the density by layer pair.

    `mean_edges` counts the sources with any edge, `edges_per_source` (the published density) every traced one.
    """
    edges = traced.untruncated.edges
    per_source = edges.groupby(SOURCE).size()
    curve = paper.attenuation(edges)
    curve = curve.assign(target_layer=curve["source_layer"].astype(int) + curve["distance"])
    table = paper.density(edges, traced.untruncated.tests).merge(curve, on=LAYER_PAIR, how="left")
    values = {"mean_edges_per_source": per_source.mean() if len(per_source) else np.nan}
    return _result("attenuation", values, len(edges), table, ["depth", "degree"])


def hubs(traced: Traced) -> Result:
    """Degrees in the graph after the cut: `largest_out_degree, largest_in_degree, n_sources, n_targets`.

    Also `largest_n_significant`, the uncut edges of one source. Table: the 20 latents with most edges, each way.
    """
    edges = traced.truncated.edges
    uncut = traced.untruncated.edges.groupby(SOURCE).size()
    out, into = (edges.groupby(end).size() for end in (SOURCE, TARGET))
    tables = []
    for role, degree in (("source", out), ("target", into)):
        top = degree.sort_values(ascending=False, kind="stable").head(TOP_HUBS).rename("degree").reset_index()
        tables.append(top.set_axis([*LATENT, "degree"], axis=1).assign(role=role))
    values = {
        "largest_out_degree": int(out.max()) if len(out) else 0,
        "largest_in_degree": int(into.max()) if len(into) else 0,
        "n_sources": len(out),
        "n_targets": len(into),
        "largest_n_significant": int(uncut.max()) if len(uncut) else 0,
    }
    return _result("hubs", values, len(edges), pd.concat(tables, ignore_index=True), ["degree"])


def coactivation(traced: Traced, pairs: pd.DataFrame) -> Result:
    """Edges after the cut that are saved PMI edges (`exact_pairs`), and causal targets that are any PMI target.

    `pairs` is `features/coactivation_across.parquet`; see `paper.saved_pmi_edges` for what of it was saved. Table: the
    saved edges per layer pair.
    """
    saved = paper.saved_pmi_edges(pairs)
    overlap = paper.pmi_overlap(traced.truncated.edges, saved)
    table = saved.groupby(LAYER_PAIR).size().rename("n_pmi_edges").reset_index()
    values = {"exact_pairs": overlap.exact_pairs, "target_overlap": overlap.target_overlap}
    return _result("coactivation", values, len(traced.truncated.edges), table, ["pmi"])


def interactions(effects: pd.DataFrame, sets: pd.DataFrame) -> Result:
    """Ratios of d, |d_S| / sum |d_i|: `ratio_2`, `ratio_3` (medians) and the `super_additive_share_...` (above 1.2).

    For independent effects they are 0.71 and 0.58 by construction. Table: one row per (set, subset, target).
    """
    table = paper.d_ratios(effects, sets)
    values = {}
    for order, rows in table.groupby("order"):
        values[f"ratio_{order}"] = rows["ratio"].median()
        values[f"super_additive_share_{order}"] = (rows["ratio"] > 1.2).mean()
    return _result("interactions", values, len(table), table, ["interaction", "d"], "targets")


class Definition(NamedTuple):
    """How a question is answered as published.

    `function` takes the trace under the published rule (`Traced`) where `of_trace` says so, then the tables of `needs`
    (names of `scircuit.circuits.artefacts.TABLES`, or `annotations`).
    """

    function: Callable[..., Result]
    needs: tuple[str, ...] = ()
    of_trace: bool = True


DEFINITIONS: Mapping[str, Definition] = {
    "sign_balance": Definition(sign_balance),
    "effect_sizes": Definition(effect_sizes),
    "coherence": Definition(coherence, ("annotations",)),
    "attenuation": Definition(attenuation),
    "hubs": Definition(hubs),
    "coactivation": Definition(coactivation, ("coactivation",)),
    "interactions": Definition(interactions, ("interactions", "interaction_sets"), of_trace=False),
}
"""Published definitions by the name of the question."""


def analyze(name: str, run: Artefacts) -> Result:
    """Answer one question of a run as published, from the same trace."""
    if question(name).name not in DEFINITIONS:
        known = ", ".join(DEFINITIONS)
        raise ScircuitError(f"{name} has no published definition; the paper profile answers {known}.")
    asked = DEFINITIONS[name]
    tables = [_annotations(run) if need == "annotations" else run.table(need) for need in asked.needs]
    return asked.function(*([Traced.of(run)] if asked.of_trace else []), *tables)


def answerable(run: Artefacts) -> list[str]:
    """Questions whose tables a run holds; annotations are made when they are asked for."""
    return [n for n, d in DEFINITIONS.items() if all(need == "annotations" or run.has(need) for need in d.needs)]


def _annotations(run: Artefacts) -> pd.DataFrame:
    table = annotate_run_as_published(run)
    if table is None:
        raise ScircuitError(
            f"the published annotations need config.json and features/features.parquet in {run.root}, which are not "
            "there; run `scircuit features` first."
        )
    return table


def _result(
    question: str, values: Mapping[str, float], n: int, table: pd.DataFrame, terms: list[str], unit: str = "edges"
) -> Result:
    measures = [Measure(name, float(value), n=n, unit_of_n=unit) for name, value in values.items()]
    return Result.of(question, DEFINITION, measures, table, NO_NULL, terms)


def _n_shared(edges: pd.DataFrame, terms: pd.DataFrame) -> np.ndarray:
    """Terms that both ends of each edge carry, int64 `[edge]`."""
    known = terms[[*LATENT, "term"]].drop_duplicates()
    first = known.set_axis([*SOURCE, "term"], axis=1)
    second = known.set_axis([*TARGET, "term"], axis=1)
    numbered = edges[ENDS].reset_index(drop=True).rename_axis("edge").reset_index()
    shared = numbered.merge(first, on=SOURCE).merge(second, on=[*TARGET, "term"])
    return np.bincount(shared["edge"], minlength=len(edges))
