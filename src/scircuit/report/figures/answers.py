"""Figures of the answers: what the circuit says, each estimate beside its null."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scircuit.report.canvas import (
    INK,
    RANDOM,
    SERIES,
    SUPPORTING,
    Save,
    canvas,
    plain_log,
    sparse_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scircuit.analysis.result import Measure, Result

DASHED = (0, (2, 2))
CURVE_POINTS = 600
"""Points of a cumulative curve, closer together towards the strongest edges."""


def _whole_and_pairs(
    ax: "Axes", table: pd.DataFrame, value: str, chance: str | None, top: dict[str, tuple["Measure", str]]
) -> None:
    """Rows from top to bottom: every measure of `top` with its interval, then the layer pairs by source layer."""
    layers = sorted(table["source_layer"].unique())
    names = [*top, *(f"from layer {layer}" for layer in layers)]
    y = table["source_layer"].map({layer: len(top) + row for row, layer in enumerate(layers)})
    area = 30 * table["n_edges"] / max(table["n_edges"].max(), 1)
    if chance is not None:
        ax.scatter(table[chance], y, 9, marker="D", facecolors="none", edgecolors=RANDOM, linewidths=0.7)
    ax.scatter(table[value], y, area, color=SUPPORTING, alpha=0.65, linewidths=0)
    for row, (measure, colour) in enumerate(top.values()):
        ax.plot(measure.null, row, "D", color=RANDOM, fillstyle="none")
        ax.hlines(row, measure.low, measure.high, color=colour, linewidth=1.6)
        ax.plot(measure.estimate, row, "o", color=colour)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)


def _height(table: pd.DataFrame, n_top: int) -> float:
    return 0.24 + 0.075 * (table["source_layer"].nunique() + n_top)


def sign_balance(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Share of supporting edges: overall with its interval, then every layer pair, beside random directions.

    `result` is the answer of `scircuit.analysis.sign_balance`.
    """
    with canvas(ax, _height(result.table, 1), show, save) as ax:
        ax.axvline(0.5, color=INK, linewidth=0.6, linestyle=DASHED)
        top = {"all edges": (result["supporting_share"], SUPPORTING)}
        _whole_and_pairs(ax, result.table, "supporting_share", "random_supporting_share", top)
        ax.set(xlim=(-0.02, 1.02), xlabel="supporting share")
    return ax


def coherence(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Fold of shared gene sets over the matched null: edges, random directions, then every layer pair.

    `result` is the answer of `scircuit.analysis.coherence`.
    """
    known = set(result.measures["measure"])
    top = {
        name: (result[measure], colour)
        for name, measure, colour in (("all edges", "fold", SUPPORTING), ("random directions", "random_fold", RANDOM))
        if measure in known
    }
    with canvas(ax, _height(result.table, len(top)), show, save) as ax:
        ax.axvline(1, color=INK, linewidth=0.6, linestyle=DASHED)
        _whole_and_pairs(ax, result.table, "fold", None, top)
        ax.set_xlim(left=0)
        ax.set(xlabel="coherent edges, observed over expected")
    return ax


def coactivation(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Area under the curve of PMI for causal edges: overall with its interval, then every layer pair.

    `result` is the answer of `scircuit.analysis.coactivation`.
    """
    with canvas(ax, _height(result.table, 1), show, save) as ax:
        ax.axvline(0.5, color=INK, linewidth=0.6, linestyle=DASHED)
        _whole_and_pairs(ax, result.table, "auc", None, {"all edges": (result["auc"], SUPPORTING)})
        ax.set(xlim=(-0.02, 1.02), xlabel="area under the curve of PMI")
    return ax


def effect_sizes(
    edges: pd.DataFrame,
    controls: pd.DataFrame | None = None,
    *,
    threshold: float | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: Save = None,
) -> "Axes":
    """Distribution of |d| over edges, uncapped, against the edges of norm-matched random directions.

    Both tables have a column `cohens_d`; curves are complementary cumulative shares, so that the strongest
    edge is seen. `threshold` marks the smallest |d| an edge may have.
    """
    with canvas(ax, 0.72, show, save) as ax:
        series = [("latent ablated", edges, SUPPORTING, "-")]
        if controls is not None:
            series.append(("random direction", controls, RANDOM, "--"))
        for name, table, colour, line in series:
            d = np.sort(table["cohens_d"].abs().to_numpy(dtype=float))
            if d.size:
                rank = np.unique(np.geomspace(1, d.size, CURVE_POINTS).round().astype(int))[::-1]
                ax.step(
                    d[d.size - rank],
                    rank / d.size,
                    where="pre",
                    color=colour,
                    linestyle=line,
                    label=f"{name} ({d.size:,})",
                )
        if threshold is not None:
            ax.axvline(threshold, color=INK, linewidth=0.6, linestyle=DASHED)
        ax.set_yscale("log")
        plain_log(ax.yaxis)
        ax.set(xlabel="|d|", ylabel="share of edges at least as strong")
        if ax.get_legend_handles_labels()[0]:
            ax.legend()
    return ax


def attenuation(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Edges per 1,000 tests against the number of layers between source and target, per source layer.

    `result` is the answer of `scircuit.analysis.attenuation`.
    """
    from matplotlib import colormaps

    table = result.table
    layers = sorted(table["source_layer"].unique())
    shades = [colormaps["viridis"](0.8 * row / max(len(layers) - 1, 1)) for row in range(len(layers))]
    rate = "edges_per_1000_tests"
    with canvas(ax, 0.76, show, save) as ax:
        for row, layer in enumerate(layers):
            part = table[table["source_layer"] == layer]
            own, random = part[part["kind"] == "latent"], part[part["kind"] == "random"]
            ax.plot(random["distance"], random[rate], "--", color=RANDOM, linewidth=0.6, alpha=0.8)
            ax.plot(own["distance"], own[rate], "o-", color=shades[row], label=f"from {layer}")
        ax.set_xticks(sparse_ticks(sorted(table["distance"].unique().tolist())))
        ax.set(xlabel="layers from source to target", ylabel="edges per 1,000 tests")
        ax.set_ylim(bottom=0)
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=4 if len(layers) > 5 else 5, borderaxespad=0,
            columnspacing=0.9, handlelength=1.1, handletextpad=0.4,
        )  # fmt: skip
    return ax


def hubs(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Tail of the degree distributions: share of latents with at least so many edges.

    `result` is the answer of `scircuit.analysis.hubs`.
    """
    with canvas(ax, 0.72, show, save) as ax:
        for end, role, colour, marker in (("out", "source", INK, "o"), ("in", "target", SERIES[3], "s")):
            degree = result.table.loc[result.table[f"is_{role}"], f"{end}_degree"].to_numpy()
            values, counts = np.unique(degree, return_counts=True)
            share = counts[::-1].cumsum()[::-1] / max(degree.size, 1)
            some = values > 0
            ax.plot(
                values[some], share[some], marker, color=colour, markersize=2.6,
                label=f"{end}-degree of {role}s ({degree.size:,})",
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        plain_log(ax.xaxis)
        plain_log(ax.yaxis)
        ax.set(xlabel="degree", ylabel="share with at least this degree")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return ax
