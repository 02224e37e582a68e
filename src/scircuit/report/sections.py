"""The sections of the report that need nothing but a run's own artefacts."""

from collections.abc import Sequence

import numpy as np

from scircuit._tables import iterate, records
from scircuit.analysis.layer_pairs import layer_pairs as count_pairs
from scircuit.analysis.nodes import NodeIndex
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.sources import source_counts
from scircuit.report import figures, numbers
from scircuit.report.blocks import Block, Column, Section, Table, slug
from scircuit.report.canvas import inline_svg
from scircuit.report.picture import SHOWN_EDGES, described, has_label
from scircuit.report.reading import sae_layers

TOP_EDGES = 25
"""Rows of the table of strongest edges."""
TOP_SOURCES = 25
"""Rows of the table of sources."""

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
    blocks = []
    for run in runs:
        layers = sae_layers(run)
        if layers.empty:
            blocks.append(Block(run.name, note="This run has no saes/manifest.json."))
            continue
        drawable = [name for name in figures.QUALITY if name in layers]
        svg = (
            inline_svg(figures.sae_quality(layers), f"{slug(run.name)}-sae", "SAE quality per layer")
            if drawable
            else ""
        )
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
        blocks.append(Block(run.name, svg, caption, tables=[table]))
    lead = (
        "Every edge on this page is read through sparse autoencoders, so none can be better than they are: a low "
        "variance explained or a low loss recovered means that part of the model's state is outside the circuit."
    )
    return Section("sae", "Quality of the sparse autoencoders", lead, blocks)


def picture(runs: Sequence[Artefacts]) -> Section:
    """The circuit itself."""
    blocks = []
    for run in runs:
        circuit = run.circuit()
        if circuit.edges.empty:
            note = "No test passed the thresholds, so there is no edge to draw. The tests made are counted below."
            blocks.append(Block(run.name, note=note))
            continue
        shown = min(SHOWN_EDGES, len(circuit.edges))
        ax = figures.circuit(circuit.edges, circuit.nodes, n=shown)
        caption = (
            f"The {shown:,} strongest of {len(circuit.edges):,} edges. Columns are layers; a feature stands once. "
            "Filled: a source that was ablated. Width grows with |d|."
        )
        svg = inline_svg(ax, f"{slug(run.name)}-picture", f"Circuit of {run.name}")
        blocks.append(Block(run.name, svg, caption, picture=True))
    lead = (
        "Each point is a latent of a sparse autoencoder, each line the effect of silencing one latent on a later "
        "one. Blue, solid: supporting, the target falls when the source is silenced. Orange, dashed: suppressing, "
        "the target rises."
    )
    return Section("circuit", "The circuit", lead, blocks)


def strongest_edges(runs: Sequence[Artefacts]) -> Section:
    """The strongest edges whose ends both carry a label, with their genes."""
    columns = [
        Column("source", "layer · latent, label, top genes", numeric=False),
        Column("target", "layer · latent, label, top genes", numeric=False),
        Column("sign", numeric=False),
        Column("n", "cells in which the source fires"),
        Column("d", "mean change of the target over cells / its standard deviation"),
        Column("mean change", "in units of the target's activation"),
        Column("consistency", "share of the changed cells that change in the main direction"),
        Column("q", "Benjamini-Hochberg over all tests with a non-zero response"),
    ]
    blocks = []
    for run in runs:
        circuit = run.circuit()
        nodes = {(row["layer"], row["feature"]): row for row in records(circuit.nodes)}
        named = np.array([has_label(node) for node in records(circuit.nodes)], dtype=bool)
        index = NodeIndex.of(circuit.nodes)
        both = circuit.edges[named[index.sources(circuit.edges)] & named[index.targets(circuit.edges)]]
        order = both["cohens_d"].abs().sort_values(ascending=False, kind="stable").index[:TOP_EDGES]
        rows = [_edge_row(row, nodes) for row in records(both.loc[order])]
        if not rows:
            blocks.append(Block(run.name, note="No edge has a label at both of its ends."))
            continue
        caption = (
            f"Showing {len(rows):,} of {len(both):,} edges with a label at both ends "
            f"({len(circuit.edges):,} edges in all), largest |d| first."
        )
        blocks.append(Block(run.name, caption=caption, tables=[Table(columns, rows, len(both))]))
    lead = (
        "A label is the gene set most enriched among a latent's top genes: a description, not a function. "
        "Effects are measured, labels are not."
    )
    return Section("edges", "Strongest labelled edges", lead, blocks)


def _edge_row(edge: dict[str, float], nodes: dict[tuple[int, int], dict[str, object]]) -> list[str]:
    ends = [
        described(nodes[edge[f"{end}_layer"], edge[f"{end}_feature"]])  # type: ignore[index]
        for end in ("source", "target")
    ]
    return [
        *ends,
        "supporting" if edge["cohens_d"] < 0 else "suppressing",
        numbers.count(edge["n_cells"]),
        numbers.decimal(edge["cohens_d"]),
        numbers.decimal(edge["mean_delta"], 3),
        numbers.percent(edge["consistency"]),
        numbers.probability(edge["q_value"]),
    ]


def layer_pairs(runs: Sequence[Artefacts]) -> Section:
    """Where the edges are, and how many tests were made to find them."""
    columns = [
        Column("source layer"),
        Column("target layer"),
        Column("sources", "latents ablated"),
        Column("tests", "source-target pairs with a non-zero response"),
        Column("edges", "tests that passed the thresholds"),
        Column("per 1,000 tests"),
        Column("random directions, per 1,000 tests", "the same with norm-matched random directions"),
    ]
    blocks = []
    for run in runs:
        pairs = count_pairs(run.circuit())
        rows = [
            [
                str(row.source_layer),
                str(row.target_layer),
                numbers.count(row.n_sources),
                numbers.count(row.n_tests),
                numbers.count(row.n_edges),
                numbers.decimal(1000 * row.n_edges / row.n_tests if row.n_tests else None),
                numbers.decimal(1000 * row.n_random_edges / row.n_random_tests if row.n_random_tests else None),
            ]
            for row in iterate(pairs)
        ]
        if not rows:
            blocks.append(Block(run.name, note="No test was recorded."))
            continue
        caption = (
            f"n = {pairs['n_tests'].sum():,} tests, {pairs['n_edges'].sum():,} edges; numbers in the cells are "
            f"edges. Null: {pairs['n_random_tests'].sum():,} tests of norm-matched random directions at the same "
            f"positions gave {pairs['n_random_edges'].sum():,} edges under the same thresholds."
        )
        svg = inline_svg(
            figures.layer_pairs(pairs), f"{slug(run.name)}-pairs", "Edges per 1,000 tests for each layer pair"
        )
        blocks.append(Block(run.name, svg, caption, tables=[Table(columns, rows, len(rows), folded=True)]))
    lead = (
        "A test is one ablated source and one later latent whose activation changed in at least one cell. Only "
        "edges divided by tests can be compared between layers and models."
    )
    return Section("pairs", "Edges and tests per layer pair", lead, blocks)


def sources(runs: Sequence[Artefacts]) -> Section:
    """What each source does beside the random directions ablated in its place."""
    columns = [
        Column("source", "layer · latent, label, top genes", numeric=False),
        Column("cells", "cells in which it fires"),
        Column("tests", "targets with a response"),
        Column("edges"),
        Column("random direction", "edges of a direction of the same norm at the same positions, mean over directions"),
    ]
    blocks = []
    for run in runs:
        table = source_counts(run.circuit())
        nodes = {(row["layer"], row["feature"]): row for row in records(run.circuit().nodes)}
        top = table.sort_values("n_edges", ascending=False, kind="stable").head(TOP_SOURCES)
        rows = [
            [
                described(nodes[row["source_layer"], row["source_feature"]]),
                numbers.count(row["n_cells"]),
                numbers.count(row["n_tests"]),
                numbers.count(row["n_edges"]),
                numbers.decimal(row["n_random_edges"], 1),
            ]
            for row in records(top)
        ]
        compared = table[table["n_random"] > 0]
        more = (compared["n_edges"] > compared["n_random_edges"]).mean() if len(compared) else None
        caption = (
            f"Showing {len(rows):,} of {len(table):,} sources, most edges first. {numbers.percent(more)} of "
            f"{len(compared):,} sources have more edges than their random directions; by chance it would be half."
        )
        blocks.append(Block(run.name, caption=caption, tables=[Table(columns, rows, len(table), folded=True)]))
    lead = (
        "Any push of the residual stream moves later latents. A source is special only by what it does beyond a random "
        "direction of the same norm at the same positions."
    )
    return Section("sources", "Sources beside random directions", lead, blocks)
