"""Figures between models and against the world: consensus, matched edges, adjusted ratios, knock-down screens."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scircuit.report.canvas import INK, RANDOM, SERIES, SUPPORTING, Save, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scircuit.analysis.result import Result

DASHED = (0, (2, 2))
MAX_POINTS = 3000
_FOLDS = {
    "fold": ("conserved pairs", SUPPORTING),
    "edge_fold": ("edges on them", SUPPORTING),
    "self_fold": ("self pairs", SUPPORTING),
    "paper_fold": ("pairs, published null", RANDOM),
}
_METRICS = {
    "direction": ("direction", 0.5),
    "auroc": ("AUROC", 0.5),
    "auprc": ("AUPRC", None),
    "auroc_direction": ("AUROC rises", 0.5),
    "spearman": ("Spearman", 0.0),
}


def consensus(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Label pairs and edges shared by models, observed over expected, beside the fold under the published null.

    `result` is the answer of `scircuit.analysis.consensus`.
    """
    known = [name for name in _FOLDS if name in set(result.measures["measure"])]
    with canvas(ax, 0.16 + 0.09 * len(known), show, save) as ax:
        ax.axvline(1, color=INK, linewidth=0.6, linestyle=DASHED)
        for y, name in enumerate(known):
            measure = result[name]
            _, colour = _FOLDS[name]
            if np.isfinite(measure.estimate):
                ax.barh(y, measure.estimate, 0.6, color=colour, alpha=0.35)
            if np.isfinite(measure.low):
                ax.hlines(y, measure.low, measure.high, color=colour, linewidth=1.6)
            ax.plot(measure.estimate, y, "o", color=colour)
            ax.plot(1, y, "D", color=RANDOM, fillstyle="none")
        ax.set_yticks(range(len(known)), [_FOLDS[name][0] for name in known])
        ax.set_ylim(len(known) - 0.4, -0.6)
        ax.set_xlim(left=0)
        ax.set(xlabel="observed over expected")
    return ax


def feature_consensus(
    result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None
) -> "Axes":
    """d of an edge in one model against d of its partner in the other.

    `result` is the answer of `scircuit.analysis.feature_matching.feature_consensus`.
    """
    both = result.table[result.table["conserved"]] if len(result.table) else result.table
    drawn = both.iloc[:: max(1, -(-len(both) // MAX_POINTS))]
    with canvas(ax, 0.7, show, save) as ax:
        ax.axhline(0, color=INK, linewidth=0.6, linestyle=DASHED)
        ax.axvline(0, color=INK, linewidth=0.6, linestyle=DASHED)
        ax.plot(drawn["d_a"], drawn["d_b"], ".", color=SUPPORTING, alpha=0.5, markersize=3)
        ax.set(xlabel="d in the first model", ylabel="d in the second model")
    return ax


def ratios(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Every ratio of a result with its interval, on a logarithmic scale; raw ones in grey.

    `result` is an answer of `scircuit.analysis.disease`.
    """
    rows = result.measures[result.measures["measure"].str.contains("ratio")]
    with canvas(ax, 0.2 + 0.09 * len(rows), show, save) as ax:
        ax.axvline(1, color=INK, linewidth=0.6, linestyle=DASHED)
        for y, row in enumerate(rows.to_dict("records")):
            colour = RANDOM if str(row["measure"]).startswith("raw") else SUPPORTING
            if np.isfinite(row["low"]):
                ax.hlines(y, row["low"], row["high"], color=colour, linewidth=1.6)
            ax.plot(row["estimate"], y, "o", color=colour)
        ax.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows["measure"]])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set(xlabel="disease over other, 1: no difference")
    return ax


def shares(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Every share of a result with its interval, beside its null.

    `result` is an answer of `scircuit.analysis.novelty` or `scircuit.analysis.tissue`.
    """
    rows = result.measures[result.measures["measure"].str.contains("share")]
    with canvas(ax, _height(rows), show, save) as ax:
        _beside_nulls(ax, rows)
        ax.set_xlim(-0.02, 1.02)
        ax.set(xlabel="share")
    return ax


def measures(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """Every number of any result with its interval, beside its null."""
    with canvas(ax, _height(result.measures), show, save) as ax:
        _beside_nulls(ax, result.measures)
        ax.set(xlabel="estimate")
    return ax


def _height(rows: pd.DataFrame) -> float:
    return 0.2 + 0.09 * len(rows)


def _beside_nulls(ax: "Axes", rows: pd.DataFrame) -> None:
    """A row per measure, from top to bottom: estimate, interval, null."""
    for y, row in enumerate(rows.to_dict("records")):
        ax.plot(row["null"], y, "D", color=RANDOM, fillstyle="none")
        if np.isfinite(row["low"]):
            ax.hlines(y, row["low"], row["high"], color=SUPPORTING, linewidth=1.6)
        ax.plot(row["estimate"], y, "o", color=SUPPORTING)
    ax.set_yticks(range(len(rows)), [_short(name.replace("_", " ")) for name in rows["measure"]])
    ax.set_ylim(len(rows) - 0.4, -0.6)


def hierarchy(result: "Result", *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None) -> "Axes":
    """PageRank of labels against what exchanged targets give; filled: labels whose depth differs from chance.

    `result` is the answer of `scircuit.analysis.hierarchy`.
    """
    table = result.table
    timed = table["depth_q"] < 0.05
    with canvas(ax, 0.7, show, save) as ax:
        reach = float(np.nanmax(table[["pagerank", "pagerank_null"]].to_numpy()))
        ax.plot([0, reach], [0, reach], color=INK, linewidth=0.6, linestyle=DASHED)
        for mask, style in ((~timed, "none"), (timed, "full")):
            part = table[mask]
            ax.plot(part["pagerank_null"], part["pagerank"], "o", color=SUPPORTING, fillstyle=style, alpha=0.7)
        ax.set(xlabel="PageRank with targets exchanged", ylabel="PageRank")
    return ax


def validation(
    summary: pd.DataFrame, *, ax: "Axes | None" = None, show: bool | None = None, save: Save = None
) -> "Axes":
    """Every method on every metric over all targets, with intervals; the circuit filled, one row per method.

    `summary` has one row per (stratum, method, metric), as `scircuit.perturbation.Validation.summary`.
    """
    every = summary[(summary["stratum"] == "all") & summary["estimate"].notna()]
    metrics = [name for name in _METRICS if name in set(every["metric"])]
    methods = list(dict.fromkeys(every["method"]))
    with canvas(ax, 0.2 + 0.075 * len(methods), show, save) as ax:
        for place, metric in enumerate(metrics):
            title, chance = _METRICS[metric]
            colour = SERIES[place % len(SERIES)]
            shift = (place - (len(metrics) - 1) / 2) * 0.14
            part = every[every["metric"] == metric].set_index("method")
            y = np.array([methods.index(str(method)) for method in part.index]) + shift
            ax.hlines(y, part["low"], part["high"], color=colour, linewidth=0.9, alpha=0.7)
            own = part.index == "circuit"
            ax.plot(part["estimate"][~own], y[~own], "o", color=colour, fillstyle="none", markersize=2.6)
            ax.plot(part["estimate"][own], y[own], "o", color=colour, label=title, markersize=3.4)
            if chance is not None:
                ax.axvline(chance, color=INK, linewidth=0.5, linestyle=DASHED)
        ax.set_yticks(range(len(methods)), [_short(method) for method in methods])
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.set(xlabel="mean over knock-downs")
        ax.legend(loc="lower left", bbox_to_anchor=(-0.3, 1), ncols=len(metrics), borderaxespad=0, columnspacing=0.8,
                  handlelength=0.8)  # fmt: skip
    return ax


def _short(name: str, limit: int = 30) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
