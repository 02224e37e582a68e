"""Figures of the run itself: its dictionaries, its tests, its circuit."""

from typing import TYPE_CHECKING, Unpack

import numpy as np
import pandas as pd

from scircuit._tables import iterate
from scircuit.report.canvas import (
    ABOVE,
    INK,
    ON_DARK,
    ON_LIGHT,
    SERIES,
    SUPPORTING,
    SUPPRESSING,
    Where,
    canvas,
    sparse_ticks,
)  # fmt: skip
from scircuit.report.picture import LAYER_GAP, strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUALITY = {
    "explained_variance": "variance explained",
    "frac_alive": "alive latents",
    "loss_recovered": "loss recovered",
}
"""Per-layer SAE measures that live on a scale from 0 to 1, with their names in the figure."""

NAME_LENGTH = 26
"""Characters of a feature's name in the picture of the circuit."""


def sae_quality(layers: pd.DataFrame, **where: Unpack[Where]) -> "Axes":
    """Held-out quality of the sparse autoencoders over depth.

    `layers` has a column `layer` and any of `explained_variance`, `frac_alive`, `loss_recovered`.
    """
    with canvas(0.68, **where) as ax:
        shown = [name for name in QUALITY if name in layers]
        for name, colour, marker in zip(shown, SERIES, "os^", strict=False):
            ax.plot(layers["layer"], layers[name], color=colour, marker=marker, label=QUALITY[name])
        lowest = layers[shown].to_numpy(dtype=float, na_value=np.nan)
        ax.set_ylim(min(0.0, float(np.nanmin(lowest, initial=0.0))), 1.04)
        ax.set_xticks(sparse_ticks(layers["layer"].tolist()))
        ax.set(xlabel="layer", ylabel="share")
        ax.legend(**ABOVE, ncols=3, columnspacing=0.8, handlelength=1)
    return ax


def layer_pairs(pairs: pd.DataFrame, *, most: float | None = None, **where: Unpack[Where]) -> "Axes":
    """Edges per 1,000 tests of every layer pair, with the number of edges written in the cell.

    `pairs` has columns `source_layer, target_layer, n_edges, n_tests`, one row per pair that was traced; one without a
    test stays empty. The colours end at `most`, so that figures of several runs share them; by default at the largest.
    """
    from matplotlib import colormaps

    with canvas(0.72, **where) as ax:
        sources, targets = sorted(pairs["source_layer"].unique()), sorted(pairs["target_layer"].unique())
        grid = np.full((len(sources), len(targets)), np.nan)
        for row in iterate(pairs):
            rate = 1000 * row.n_edges / row.n_tests if row.n_tests else np.nan
            grid[sources.index(row.source_layer), targets.index(row.target_layer)] = rate
        # Few steps, so that the colour bar stays vector graphics.
        shades = colormaps["cividis_r"].resampled(32)
        top = max(float(np.nanmax(grid, initial=0.0)), 1e-9) if most is None else most
        mesh = ax.pcolormesh(grid, cmap=shades, edgecolors="white", linewidth=0.8, vmin=0, vmax=top)
        if len(targets) <= 8:
            for row in iterate(pairs[pairs["n_tests"] > 0]):
                y, x = sources.index(row.source_layer), targets.index(row.target_layer)
                colour = ON_DARK if grid[y, x] > top / 2 else ON_LIGHT
                ax.text(x + 0.5, y + 0.5, f"{row.n_edges:,}", ha="center", va="center", color=colour, fontsize=6)
        ax.set_xticks(np.arange(len(targets)) + 0.5, targets)
        ax.set_yticks(np.arange(len(sources)) + 0.5, sources)
        ax.set(xlabel="target layer", ylabel="source layer")
        ax.get_figure().colorbar(mesh, ax=ax, label="edges per 1,000 tests")  # type: ignore[union-attr]
    return ax


def circuit(
    edges: pd.DataFrame,
    nodes: pd.DataFrame,
    *,
    n: int = 100,
    n_labels: int = 14,
    **where: Unpack[Where],
) -> "Axes":
    """The `n` strongest edges: layers from left to right, colour = sign, width = |d|.

    Of the features, the `n_labels` with the largest sum of |d| are named.
    """
    drawn = strongest(edges, nodes, n)
    with canvas(0.95, **where) as ax:
        _draw_edges(ax, drawn.edges)
        points = drawn.nodes
        fill = [INK if source else "white" for source in points["is_source"]]
        ax.scatter(
            points["x"], points["y"], s=4 + 1.2 * points["degree"], c=fill, edgecolors=INK, linewidths=0.5, zorder=3
        )
        for row in iterate(points.nlargest(n_labels, "strength")):
            name = row.name if len(row.name) <= NAME_LENGTH else f"{row.name[: NAME_LENGTH - 1]}…"
            ax.annotate(name, (row.x, row.y), (2, 2), textcoords="offset points", fontsize=5, zorder=4)
        layers = sorted(points["layer"].unique())
        ax.set_xticks([LAYER_GAP * layer for layer in layers], [str(layer) for layer in layers])
        ax.set(xlabel="layer", yticks=[])
        ax.margins(x=0.12, y=0.04)
        ax.spines["left"].set_visible(False)
    return ax


def _draw_edges(ax: "Axes", edges: pd.DataFrame) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    top = max(float(edges["cohens_d"].abs().max()), 1e-9) if len(edges) else 1.0
    for row in iterate(edges.iloc[::-1]):
        bend = (row.x1 - row.x0) * 0.5
        points = [(row.x0, row.y0), (row.x0 + bend, row.y0), (row.x1 - bend, row.y1), (row.x1, row.y1)]
        curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
        supports = row.cohens_d < 0
        ax.add_patch(
            PathPatch(
                curve, fill=False, alpha=0.65, linewidth=0.3 + 1.7 * abs(row.cohens_d) / top,
                edgecolor=SUPPORTING if supports else SUPPRESSING, linestyle="-" if supports else (0, (3, 1)),
            )
        )  # fmt: skip
