"""The sections of the report that need nothing but a run's own artefacts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scircuit._tables import iterate, records
from scircuit.analysis.layer_pairs import layer_pairs as count_pairs
from scircuit.analysis.nodes import NodeIndex
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import ENDS
from scircuit.circuits.sources import source_counts
from scircuit.report import figures, numbers
from scircuit.report.blocks import FEATURE, Block, Column, Columns, Section, Table, slug, table_of
from scircuit.report.canvas import inline_svg
from scircuit.report.picture import SHOWN_EDGES, described, has_label
from scircuit.report.reading import sae_layers

TOP_EDGES, TOP_SOURCES = 25, 25
"""Rows of the tables."""

QUALITY_COLUMNS = {
    "n_latents": (Column("latents", "width of the SAE"), 0),
    "k": (Column("k", "latents kept per position"), 0),
    "l0": (Column("L0", "latents that fire at a position, mean over held-out positions"), 1),
    "fvu": (Column("FVU", "fraction of variance unexplained on held-out positions"), 3),
    "explained_variance": (Column("variance explained", "1 − FVU"), 3),
    "cossim": (Column("cosine", "mean cosine between residual and reconstruction"), 3),
    "frac_alive": (Column("alive", "share of latents that fire at least once on held-out positions"), 3),
    "loss_recovered": (
        Column(
            "loss recovered",
            "share of the model's masked-token loss kept when the reconstruction is spliced in: 1 as good as the "
            "residual itself, 0 as bad as its ablation",
        ),
        3,
    ),
    "one_gene_share": (
        Column("one gene", "share of live latents with more than half of their activation on a single gene"),
        3,
    ),
    "seed_stability": (
        Column("seed stability", "mean cosine of a latent's direction with its nearest under another seed"),
        3,
    ),
    "seed_stability_random": (Column("by chance", "the same with random directions in place of another seed's"), 3),
    "n_labelled": (Column("labelled", "latents that a gene set names"), 0),
    "n_rows": (Column("positions", "held-out positions measured"), 0),
}
"""Per-layer SAE measures by their name, and their decimals."""


def sae_quality(runs: Sequence[Artefacts]) -> Section:
    """How faithful the sparse autoencoders are, layer by layer."""
    lead = (
        "Every edge on this page is read through sparse autoencoders, so none can be better than they are: a low "
        "variance explained or a low loss recovered means that part of the model's state is outside the circuit."
    )
    return Section("sae", "Quality of the sparse autoencoders", lead, [_quality_of(run) for run in runs])


def _quality_of(run: Artefacts) -> Block:
    layers = sae_layers(run)
    if layers.empty:
        return Block(run.name, note="This run has no saes/manifest.json.")
    svg = ""
    if any(name in layers for name in figures.QUALITY):
        svg = inline_svg(figures.sae_quality(layers), f"{slug(run.name)}-sae", "SAE quality per layer")
    measured = {name: shown for name, shown in QUALITY_COLUMNS.items() if name in layers}
    rows = [
        [str(int(row["layer"])), *(numbers.decimal(row[name], digits) for name, (_, digits) in measured.items())]
        for row in records(layers)
    ]
    table = Table([Column("layer"), *(column for column, _ in measured.values())], rows, len(rows))
    caption = (
        f"n = {len(layers)} SAEs, one per layer, each measured on held-out cells. No null applies: 1 would be "
        "a perfect reconstruction."
    )
    return Block(run.name, svg, caption, tables=[table])


def picture(runs: Sequence[Artefacts]) -> Section:
    """The circuit itself."""
    lead = (
        "Each point is a latent of a sparse autoencoder, each line the effect of silencing one latent on a later "
        "one. Blue, solid: supporting, the target falls when the source is silenced. Orange, dashed: suppressing, "
        "the target rises."
    )
    return Section("circuit", "The circuit", lead, [_picture_of(run) for run in runs])


def _picture_of(run: Artefacts) -> Block:
    circuit = run.circuit()
    if circuit.edges.empty:
        note = f"No edge is {circuit.widest}, so there is none to draw. The tests made are counted below."
        return Block(run.name, note=note)
    shown = min(SHOWN_EDGES, len(circuit.edges))
    ax = figures.circuit(circuit.edges, circuit.nodes, n=shown)
    caption = (
        f"The {shown:,} strongest of {len(circuit.edges):,} {circuit.widest} edges. Columns are layers; "
        "a feature stands once. Filled: a source that was ablated. Width grows with |d|."
    )
    svg = inline_svg(ax, f"{slug(run.name)}-picture", f"Circuit of {run.name}")
    return Block(run.name, svg, caption)


def strongest_edges(runs: Sequence[Artefacts]) -> Section:
    """The strongest edges whose ends both carry a label, with their genes."""
    lead = (
        "A label is the gene set most enriched among a latent's top genes (smallest q, then largest fold, then fewest "
        "genes): a description, not a function. "
        "Effects are measured, labels are not."
    )
    return Section("edges", "Strongest labelled edges", lead, [_strongest_of(run) for run in runs])


def _strongest_of(run: Artefacts) -> Block:
    circuit, names = run.circuit(), described(run.circuit().nodes)
    d = "mean change of the target over cells / its standard deviation"
    consistency = "share of the changed cells that change in the main direction"
    q = "Benjamini-Hochberg over all tests with a non-zero response"
    again = _in_other_cells(run)
    other = "in cells that had no part in finding the edge, with its 95% interval"
    columns: Columns = {
        FEATURE._replace(title="source"): lambda row: names[row["source_layer"], row["source_feature"]],
        FEATURE._replace(title="target"): lambda row: names[row["target_layer"], row["target_feature"]],
        Column("sign", numeric=False): lambda row: "supporting" if row["cohens_d"] < 0 else "suppressing",
        Column("n", "cells in which the source fires"): lambda row: numbers.count(row["n_cells"]),
        Column("d", d): lambda row: numbers.decimal(row["cohens_d"]),
        Column("mean change", "in units of the target's activation"): lambda row: numbers.decimal(row["mean_delta"], 3),
        Column("mean change, other cells", other): lambda row: again.get(
            tuple(row[end] for end in ENDS), numbers.MISSING
        ),
        Column("consistency", consistency): lambda row: numbers.percent(row["consistency"]),
        Column("q", q): lambda row: numbers.probability(row["q_value"]),
    }
    named = np.array([has_label(node) for node in records(circuit.nodes)], dtype=bool)
    index = NodeIndex.of(circuit.nodes)
    both = circuit.edges[named[index.sources(circuit.edges)] & named[index.targets(circuit.edges)]]
    order = both["cohens_d"].abs().sort_values(ascending=False, kind="stable").index[:TOP_EDGES]
    if not len(order):
        return Block(run.name, note="No edge has a label at both of its ends.")
    caption = (
        f"Showing {len(order):,} of {len(both):,} edges with a label at both ends "
        f"({len(circuit.edges):,} edges in all), largest |d| first. d and mean change are those of the cells in which "
        "the edges were chosen, and for that larger than they are"
    )
    caption += "; those in other cells are not." if again else ": no edge was measured again in other cells."
    table = table_of(columns, records(both.loc[order]), len(both), folded=False)
    return Block(run.name, caption=caption, tables=[table])


def _in_other_cells(run: Artefacts) -> dict[tuple[int, ...], str]:
    """Mean change of each edge that was measured again, with its interval, by its ends."""
    if not run.has("confirmation"):
        return {}
    rows = run.table("confirmation", [*ENDS, "mean_delta", "ci_low", "ci_high"])
    return {
        tuple(row[end] for end in ENDS): f"{numbers.decimal(row['mean_delta'], 3)}\n"
        f"{numbers.interval(row['ci_low'], row['ci_high'])}"
        for row in records(rows)
    }


def layer_pairs(runs: Sequence[Artefacts]) -> Section:
    """Where the edges are, and how many tests were made to find them."""
    lead = (
        "A test is one ablated source and one later latent whose activation changed in at least one cell. Only "
        "edges divided by tests can be compared between layers and models."
    )
    counted = [count_pairs(run.circuit()) for run in runs]
    most = max((_largest_rate(pairs) for pairs in counted), default=0.0)
    blocks = [_pairs_of(run, pairs, most) for run, pairs in zip(runs, counted, strict=True)]
    return Section("pairs", "Edges and tests per layer pair", lead, blocks)


def _largest_rate(pairs: pd.DataFrame) -> float:
    tested = pairs[pairs["n_tests"] > 0]
    return float((1000 * tested["n_edges"] / tested["n_tests"]).max()) if len(tested) else 0.0


def _rate(edges: int, tests: int) -> str:
    return numbers.decimal(1000 * edges / tests if tests else None)


RANDOM_RATE = Column("random directions, per 1,000 tests", "the same with norm-matched random directions")
LAYER_PAIR_COLUMNS: Columns = {
    Column("source layer"): lambda row: str(row.source_layer),
    Column("target layer"): lambda row: str(row.target_layer),
    Column("sources", "latents ablated"): lambda row: numbers.count(row.n_sources),
    Column("tests", "source-target pairs with a non-zero response"): lambda row: numbers.count(row.n_tests),
    Column("edges", "tests that passed the thresholds"): lambda row: numbers.count(row.n_edges),
    Column("per 1,000 tests"): lambda row: _rate(row.n_edges, row.n_tests),
    RANDOM_RATE: lambda row: _rate(row.n_random_edges, row.n_random_tests),
}


def _pairs_of(run: Artefacts, pairs: pd.DataFrame, most: float) -> Block:
    if pairs.empty:
        return Block(run.name, note="No test was recorded.")
    caption = (
        f"n = {pairs['n_tests'].sum():,} tests, {pairs['n_edges'].sum():,} edges; numbers in the cells are "
        f"edges. Null: {pairs['n_random_tests'].sum():,} tests of norm-matched random directions at the same "
        f"positions gave {pairs['n_random_edges'].sum():,} edges under the same thresholds."
    )
    svg = ""
    if pairs["n_edges"].any():
        ax, title = figures.layer_pairs(pairs, most=most), "Edges per 1,000 tests for each layer pair"
        svg = inline_svg(ax, f"{slug(run.name)}-pairs", title)
    return Block(run.name, svg, caption, tables=[table_of(LAYER_PAIR_COLUMNS, iterate(pairs))])


def sources(runs: Sequence[Artefacts]) -> Section:
    """What each source does beside the random directions ablated in its place."""
    lead = (
        "Any push of the residual stream moves later latents. A source is special only by what it does beyond a random "
        "direction of the same norm at the same positions."
    )
    return Section("sources", "Sources beside random directions", lead, [_sources_of(run) for run in runs])


def _sources_of(run: Artefacts) -> Block:
    table, names = source_counts(run.circuit()), described(run.circuit().nodes)
    random = "edges of a direction of the same norm at the same positions, mean over directions"
    columns: Columns = {
        FEATURE._replace(title="source"): lambda row: names[row["source_layer"], row["source_feature"]],
        Column("cells", "cells in which it fires"): lambda row: numbers.count(row["n_cells"]),
        Column("tests", "targets with a response"): lambda row: numbers.count(row["n_tests"]),
        Column("edges"): lambda row: numbers.count(row["n_edges"]),
        Column("random direction", random): lambda row: numbers.decimal(row["n_random_edges"], 1),
    }
    top = table.sort_values("n_edges", ascending=False, kind="stable").head(TOP_SOURCES)
    compared = table[table["n_random"] > 0]
    more = (compared["n_edges"] > compared["n_random_edges"]).mean() if len(compared) else None
    caption = (
        f"Showing {len(top):,} of {len(table):,} sources, most edges first. {numbers.percent(more)} of "
        f"{len(compared):,} sources have more edges than their random directions; by chance it would be half."
    )
    return Block(run.name, caption=caption, tables=[table_of(columns, records(top), len(table))])
