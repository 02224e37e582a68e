"""What our traces give for the published numbers: of one condition, and of all conditions pooled. No torch.

Each number has an identifier; `data/published.toml` says what the published study found for it and what it means.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit._io import read_json
from scircuit._tables import records, write_parquet
from scircuit.analysis.conditions import LabelledEdges, label_vocabulary, labelled_edges
from scircuit.analysis.nodes import sizes
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, LATENT, LAYER_PAIR, SOURCE, TARGET
from scircuit.circuits.specificity import is_decoy
from scircuit.errors import ScircuitError
from scircuit.published import definitions as paper
from scircuit.published.annotation_rule import PUBLISHED
from scircuit.published.disease import KEYWORDS
from scircuit.published.questions import DEFINITION, NO_NULL, Traced
from scircuit.published.screen import paper_gene_pairs, with_genes

FILE = "analysis/published_numbers.parquet"
STRONG = 1.0
"""Mean |d| above which the published study called a label pair of high confidence, in either model."""
_APART = 10_000
"""Added to the layers of each further condition, so that latents of different dictionaries stay different."""


class Number(NamedTuple):
    """One number: what it counts (`id`), under which rule (`paper` or `default`), its value, null and n."""

    id: str
    profile: str
    estimate: float
    null: float = np.nan
    n: int = 0
    unit_of_n: str = "edges"


def write_numbers(run: Artefacts) -> None:
    """Write `analysis/published_numbers.parquet` of a traced run."""
    write_parquet(run.root / FILE, condition_numbers(run))


def condition_numbers(run: Artefacts) -> pd.DataFrame:
    """Every number of one traced run: `id, profile, estimate, null, n, unit_of_n`.

    `profile` is `default` for the run's own rule, with the edges of one random direction per source as null where a
    count has one, and `paper` for the published rule on the same trace, which has none.
    """
    circuit, (capped, uncapped) = run.circuit(), Traced.of(run)
    found = [*_work(circuit, run.table("tests"), read_json(run.root / "trace" / "trace.json"))]
    found += [*_of_edges(capped, uncapped, "paper"), *_of_edges(circuit, circuit, "default")]
    found += [*_coherent(run, capped), *_coactive(run, capped)]
    return pd.DataFrame(found, columns=list(Number._fields))


def _work(circuit: Circuit, tests: pd.DataFrame, trace: dict) -> Iterator[Number]:
    """Forward passes: one clean pass per cell and source layer, one per source in each cell where it fires."""
    own = tests[tests["kind"] == "latent"].drop_duplicates(SOURCE)
    clean = int(circuit.provenance["n_cells"]) * own["source_layer"].nunique()
    made = trace["n_clean_forwards"] + trace["n_ablated_forwards"]
    passes = {"paper": clean + int(own["n_cells"].sum()), "default": made}
    for name, counted in (("passes", passes), ("sources", dict.fromkeys(passes, len(own)))):
        for profile, count in counted.items():
            yield Number(name, profile, count, n=len(own), unit_of_n="sources")


def _of_edges(capped: Circuit, uncapped: Circuit, profile: str) -> Iterator[Number]:
    """Counts and sizes of edges; both circuits are the same where the rule caps nothing."""
    edges, controls, tests = capped.edges, capped.controls, capped.tests
    n = len(edges)
    # Random directions per source: the null of a count is what one of them finds.
    draws = max(1, tests.loc[is_decoy(tests), "draw"].nunique())
    has_null = profile == "default" and bool(is_decoy(tests).any())
    null = len(controls) / draws if has_null else np.nan
    yield Number("edges", profile, n, null, n)
    yield Number("edges_uncapped", profile, len(uncapped.edges), null, len(uncapped.edges))
    targets = edges[TARGET].drop_duplicates()
    yield Number("targets", profile, len(targets), n=n)
    yield Number(
        "coverage", profile, len(targets) / max(len(capped.nodes), 1), n=len(capped.nodes), unit_of_n="latents"
    )

    def beside_null(name: str, of: Callable[[pd.Series], float], own: pd.Series, other: pd.Series) -> Number:
        return Number(name, profile, float(of(own)), float(of(other)) if has_null else np.nan, n)

    # |d| is not a number where the responses do not vary at all.
    size, chance = (pd.Series(sizes(table), dtype=float).dropna() for table in (edges, controls))
    yield beside_null("mean_abs_d", pd.Series.mean, size, chance)
    yield beside_null("median_abs_d", pd.Series.median, size, chance)
    yield beside_null("max_abs_d", pd.Series.max, size, chance)
    for limit in (1, 2, 3, 5):
        yield beside_null(f"abs_d_above_{limit}", pd.Series.mean, size > limit, chance > limit)
    yield beside_null("supporting_share", pd.Series.mean, edges["cohens_d"] < 0, controls["cohens_d"] < 0)
    labelled = pd.MultiIndex.from_frame(with_genes(capped)[LATENT])
    share = pd.MultiIndex.from_frame(targets).isin(labelled).mean() if len(targets) else np.nan
    yield Number("labelled_targets", profile, float(share), n=len(targets), unit_of_n="targets")
    # Published out-degrees are uncapped, in-degrees capped.
    for name, table, ends in (("out_degree", uncapped.edges, SOURCE), ("in_degree", capped.edges, TARGET)):
        counts = table.groupby(ends).size()
        yield Number(f"largest_{name}", profile, int(counts.max()) if len(counts) else 0, n=len(table))
    yield from _by_layer(uncapped, profile)


def _by_layer(circuit: Circuit, profile: str) -> Iterator[Number]:
    """Edges per source: by source layer, by layer pair, and by distance (attenuation, sources with any edge)."""
    edges, tests = circuit.edges, circuit.tests[circuit.tests["kind"] == "latent"]
    n_sources = tests.drop_duplicates(SOURCE).groupby("source_layer").size()
    n_edges = edges.groupby("source_layer").size().reindex(n_sources.index, fill_value=0)
    for layer, count, n in zip(n_sources.index, n_edges, n_sources, strict=True):
        yield Number(f"edges_from_L{layer}", profile, int(count), n=int(n), unit_of_n="sources")
        yield Number(f"edges_per_source_L{layer}", profile, count / n, n=int(n), unit_of_n="sources")
    for a, b, mean in paper.density(edges, tests).itertuples(index=False):
        yield Number(f"density_L{a}_L{b}", profile, mean, n=int(n_sources[a]), unit_of_n="sources")
    for row in records(paper.attenuation(edges)):
        name = f"attenuation_L{row['source_layer']}_{row['distance']}"
        yield Number(name, profile, row["mean_edges"], n=len(edges))


def _coherent(run: Artefacts, capped: Circuit) -> Iterator[Number]:
    """Edges with an annotation at both ends, and those that share one; annotated as published where that was done."""
    annotations = run.table(PUBLISHED) if run.has(PUBLISHED) else capped.terms
    both, shared = paper.annotated_edges(capped.edges, annotations)
    yield Number("both_annotated", "paper", both, n=len(capped.edges))
    yield Number("sharing_a_set", "paper", shared, n=both)


def _coactive(run: Artefacts, capped: Circuit) -> Iterator[Number]:
    """Edges against the co-activation pairs that the published study saved, for each pair of layers that has both."""
    if not run.has("coactivation"):
        return
    saved = dict(list(paper.saved_pmi_edges(run.table("coactivation")).groupby(LAYER_PAIR)))
    for pair, edges in capped.edges.groupby(LAYER_PAIR):
        if pair in saved:
            found, where = paper.pmi_overlap(edges, saved[pair]), f"L{pair[0]}_L{pair[1]}"
            n_targets = len(edges[TARGET].drop_duplicates())
            yield Number(f"pmi_target_overlap_{where}", "paper", found.target_overlap, n=n_targets, unit_of_n="targets")
            yield Number(f"pmi_exact_pairs_{where}", "paper", found.exact_pairs, n=len(edges))


def label_numbers(conditions: Sequence[Artefacts]) -> Result:
    """How many edges, labels and label pairs the conditions have, pooled as the published study pools them.

    Measures `both_labelled_edges, labels, label_pairs`, `strong_conserved` (pairs of every model with a mean |d| above
    1 in each) and, per model, `label_pairs_MODEL`. Table: one row per label pair and model, `source_label,
    target_label, model, n_edges, mean_abs_d`.
    """
    labels = label_vocabulary([c.circuit() for c in conditions])
    edges = labelled_edges(conditions, [LabelledEdges.of(c.circuit(), labels) for c in conditions])
    pairs = edges.groupby(["source", "target", "model"])["abs_d"].agg(n_edges="size", mean_abs_d="mean").reset_index()
    models = list(dict.fromkeys(c.model_name for c in conditions))
    strong = pairs[pairs["mean_abs_d"] > STRONG].groupby(["source", "target"]).size()
    n = len(edges)
    counts = {
        "both_labelled_edges": n,
        "labels": len(set(edges["source"]) | set(edges["target"])),
        "label_pairs": len(pairs[["source", "target"]].drop_duplicates()),
        "strong_conserved": int((strong == len(models)).sum()),
        **{f"label_pairs_{model}": int((pairs["model"] == model).sum()) for model in models},
    }
    table = pd.DataFrame(
        {
            "source_label": labels.to_numpy()[pairs["source"]],
            "target_label": labels.to_numpy()[pairs["target"]],
            **{name: pairs[name] for name in ("model", "n_edges", "mean_abs_d")},
        }
    )
    measures = [Measure(name, count, n=n) for name, count in counts.items()]
    about = "label pair: labels of the two ends."
    return Result.of("labels", "label-numbers/1", measures, table, "none: counts", glossary=about)


def gene_pair_numbers(conditions: Sequence[Artefacts]) -> Result:
    """Edges whose two ends have genes, and gene pairs kept, over the edges of all conditions together.

    Measures `edges_with_genes` and `kept` (pairs of two edges or more, or of one with |d| above 2). Table: the kept
    pairs.
    """
    edges, nodes = [], []
    for number, condition in enumerate(conditions):
        apart = _APART * number
        own, named = condition.circuit().edges[[*ENDS, "cohens_d"]], with_genes(condition.circuit())
        edges.append(own.assign(**{layer: own[layer].astype(int) + apart for layer in LAYER_PAIR}))
        nodes.append(named.assign(layer=named["layer"].astype(int) + apart)[[*LATENT, "top_genes"]])
    edge, node = pd.concat(edges, ignore_index=True), pd.concat(nodes, ignore_index=True)
    known = pd.MultiIndex.from_frame(node[LATENT])
    both = np.logical_and(*(pd.MultiIndex.from_frame(edge[end]).isin(known) for end in (SOURCE, TARGET)))
    if not both.any():
        raise ScircuitError("no edge has a latent that a gene set names at both ends, so no genes are paired.")
    pairs, n = paper_gene_pairs(edge[both], node), int(both.sum())
    measures = [Measure("edges_with_genes", n, n=len(edge)), Measure("kept", len(pairs), n=n)]
    return Result.of("gene_pairs", DEFINITION, measures, pairs, NO_NULL, ["d"])


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
    return Result.of("disease_categories", DEFINITION, measures, table, NO_NULL, ["d"])
