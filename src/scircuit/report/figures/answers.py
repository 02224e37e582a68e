"""Figures of the answers: what the circuit says, each estimate beside its null."""

from typing import TYPE_CHECKING, Unpack

import numpy as np
import pandas as pd

from scircuit.report.canvas import (
    ABOVE,
    INK,
    RANDOM,
    REFERENCE,
    SERIES,
    SUPPORTING,
    Where,
    canvas,
    estimates,
    plain_log,
    sparse_ticks,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scircuit.analysis.result import Measure, Result

CURVE_POINTS = 600
"""Points of a cumulative curve, closer together towards the strongest edges."""


def _whole_and_pairs(
    ax: "Axes", table: pd.DataFrame, value: str, chance: str | None, top: dict[str, tuple["Measure", str]]
) -> None:
    """Rows from top to bottom: every measure of `top` with its interval, then the layer pairs by source layer."""
    layers = sorted(table["source_layer"].unique())
    names = [*top, *(f"from layer {layer}" for layer in layers)]
    measures, colours = [measure for measure, _ in top.values()], [colour for _, colour in top.values()]
    y = table["source_layer"].map({layer: len(top) + row for row, layer in enumerate(layers)})
    area = 30 * table["n_edges"] / max(table["n_edges"].max(), 1)
    if chance is not None:
        ax.scatter(table[chance], y, 9, marker="D", facecolors="none", edgecolors=RANDOM, linewidths=0.7)
    ax.scatter(table[value], y, area, color=SUPPORTING, alpha=0.65, linewidths=0)
    ax.plot([measure.null for measure in measures], range(len(top)), "D", color=RANDOM, fillstyle="none")
    estimates(ax, list(top), measures, colours)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)


def _height(table: pd.DataFrame, n_top: int) -> float:
    return 0.24 + 0.075 * (table["source_layer"].nunique() + n_top)


def sign_balance(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Share of supporting edges: overall with its interval, then every layer pair, beside random directions."""
    with canvas(_height(result.table, 1), **where) as ax:
        ax.axvline(0.5, **REFERENCE)
        top = {"all edges": (result["supporting_share"], SUPPORTING)}
        _whole_and_pairs(ax, result.table, "supporting_share", "random_supporting_share", top)
        ax.set(xlim=(-0.02, 1.02), xlabel="supporting share")
    return ax


def coherence(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Fold of shared gene sets over the matched null: edges, random directions, then every layer pair."""
    known = set(result.measures["measure"])
    top = {
        name: (result[measure], colour)
        for name, measure, colour in (("all edges", "fold", SUPPORTING), ("random directions", "random_fold", RANDOM))
        if measure in known
    }
    with canvas(_height(result.table, len(top)), **where) as ax:
        ax.axvline(1, **REFERENCE)
        _whole_and_pairs(ax, result.table, "fold", None, top)
        ax.set_xlim(left=0)
        ax.set(xlabel="coherent edges, observed over expected")
    return ax


def coactivation(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Area under the curve of PMI for causal edges: overall with its interval, then every layer pair."""
    with canvas(_height(result.table, 1), **where) as ax:
        ax.axvline(0.5, **REFERENCE)
        _whole_and_pairs(ax, result.table, "auc", None, {"all edges": (result["auc"], SUPPORTING)})
        ax.set(xlim=(-0.02, 1.02), xlabel="area under the curve of PMI")
    return ax


def effect_sizes(
    edges: pd.DataFrame,
    controls: pd.DataFrame | None = None,
    *,
    threshold: float | None = None,
    **where: Unpack[Where],
) -> "Axes":
    """Distribution of |d| over edges, uncapped, against the edges of norm-matched random directions.

    Both tables have a column `cohens_d`; curves are complementary cumulative shares, so that the strongest
    edge is seen. `threshold` marks the smallest |d| an edge may have.
    """
    with canvas(0.72, **where) as ax:
        series = [("latent ablated", edges, SUPPORTING, "-")]
        if controls is not None:
            series.append(("random direction", controls, RANDOM, "--"))
        for name, table, colour, line in series:
            d = np.sort(table["cohens_d"].abs().to_numpy(dtype=float))
            if d.size:
                rank = np.unique(np.geomspace(1, d.size, CURVE_POINTS).round().astype(int))[::-1]
                label = f"{name} ({d.size:,})"
                ax.step(d[d.size - rank], rank / d.size, where="pre", color=colour, linestyle=line, label=label)
        if threshold is not None:
            ax.axvline(threshold, **REFERENCE)
        ax.set_yscale("log")
        plain_log(ax.yaxis)
        ax.set(xlabel="|d|", ylabel="share of edges at least as strong")
        if ax.get_legend_handles_labels()[0]:
            ax.legend()
    return ax


def attenuation(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Edges per 1,000 tests against the number of layers between source and target, per source layer."""
    from matplotlib import colormaps

    table = result.table
    layers = sorted(table["source_layer"].unique())
    shades = [colormaps["viridis"](0.25 + 0.55 * row / max(len(layers) - 1, 1)) for row in range(len(layers))]
    rate = "edges_per_1000_tests"
    with canvas(0.76, **where) as ax:
        for row, layer in enumerate(layers):
            part = table[table["source_layer"] == layer]
            own, random = part[part["kind"] == "latent"], part[part["kind"] == "random"]
            ax.plot(random["distance"], random[rate], "--", color=shades[row], linewidth=0.8, alpha=0.8)
            ax.plot(own["distance"], own[rate], "o-", color=shades[row], label=f"from {layer}")
        ax.set_xticks(sparse_ticks(sorted(table["distance"].unique().tolist())))
        ax.set(xlabel="layers from source to target", ylabel="edges per 1,000 tests")
        ax.set_ylim(bottom=0)
        ncols = 4 if len(layers) > 5 else 5
        ax.legend(**ABOVE, ncols=ncols, columnspacing=0.9, handlelength=1.1, handletextpad=0.4)
    return ax


def hubs(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Tail of the degree distributions: share of latents with at least so many edges."""
    with canvas(0.72, **where) as ax:
        for end, role, colour, marker in (("out", "source", INK, "o"), ("in", "target", SERIES[3], "s")):
            degree = result.table.loc[result.table[f"is_{role}"], f"{end}_degree"].to_numpy()
            values, counts = np.unique(degree, return_counts=True)
            share = counts[::-1].cumsum()[::-1] / max(degree.size, 1)
            some = values > 0
            label = f"{end}-degree of {role}s ({degree.size:,})"
            ax.plot(values[some], share[some], marker, color=colour, markersize=2.6, label=label)
        ax.set_xscale("log")
        ax.set_yscale("log")
        plain_log(ax.xaxis)
        plain_log(ax.yaxis)
        ax.set(xlabel="degree", ylabel="share with at least this degree")
        ax.legend(**ABOVE)
    return ax
