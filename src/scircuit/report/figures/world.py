"""Figures between models and against the world: consensus, matched edges, adjusted ratios, knock-down screens."""

from typing import TYPE_CHECKING, Unpack

import numpy as np
import pandas as pd

from scircuit._tables import iterate
from scircuit.report.canvas import ABOVE, RANDOM, REFERENCE, SERIES, SUPPORTING, Where, canvas, estimates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scircuit.analysis.result import Result

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


def consensus(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Label pairs and edges shared by models, observed over expected, beside the fold under the published null."""
    known = [name for name in _FOLDS if name in set(result.measures["measure"])]
    with canvas(0.16 + 0.09 * len(known), **where) as ax:
        ax.axvline(1, **REFERENCE)
        folds = [result[name] for name in known]
        for y, (name, fold) in enumerate(zip(known, folds, strict=True)):
            if np.isfinite(fold.estimate):
                ax.barh(y, fold.estimate, 0.6, color=_FOLDS[name][1], alpha=0.35)
            ax.plot(1, y, "D", color=RANDOM, fillstyle="none")
        estimates(ax, [_FOLDS[name][0] for name in known], folds, [_FOLDS[name][1] for name in known])
        ax.set_xlim(left=0)
        ax.set(xlabel="observed over expected")
    return ax


def feature_consensus(result: "Result", **where: Unpack[Where]) -> "Axes":
    """d of an edge in one model against d of its partner in the other."""
    both = result.table[result.table["conserved"]] if len(result.table) else result.table
    drawn = both.iloc[:: max(1, -(-len(both) // MAX_POINTS))]
    with canvas(0.7, **where) as ax:
        ax.axhline(0, **REFERENCE)
        ax.axvline(0, **REFERENCE)
        ax.plot(drawn["d_a"], drawn["d_b"], ".", color=SUPPORTING, alpha=0.5, markersize=3)
        ax.set(xlabel="d in the first model", ylabel="d in the second model")
    return ax


def ratios(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Every ratio of a result with its interval, on a logarithmic scale; raw ones in grey.

    `result` is an answer of `scircuit.analysis.disease`.
    """
    rows = result.measures[result.measures["measure"].str.contains("ratio")]
    colours = [RANDOM if name.startswith("raw") else SUPPORTING for name in rows["measure"]]
    with canvas(_height(rows), **where) as ax:
        ax.axvline(1, **REFERENCE)
        estimates(ax, [name.replace("_", " ") for name in rows["measure"]], iterate(rows), colours)
        ax.set(xlabel="disease over other, 1: no difference")
    return ax


def shares(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Every share of a result with its interval, beside its null.

    `result` is an answer of `scircuit.analysis.novelty` or `scircuit.analysis.tissue`.
    """
    rows = result.measures[result.measures["measure"].str.contains("share")]
    with canvas(_height(rows), **where) as ax:
        _beside_nulls(ax, rows)
        ax.set_xlim(-0.02, 1.02)
        ax.set(xlabel="share")
    return ax


def measures(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Every number of any result with its interval, beside its null."""
    with canvas(_height(result.measures), **where) as ax:
        _beside_nulls(ax, result.measures)
        ax.set(xlabel="estimate")
    return ax


def _height(rows: pd.DataFrame) -> float:
    return 0.2 + 0.09 * len(rows)


def _beside_nulls(ax: "Axes", rows: pd.DataFrame) -> None:
    """A row per measure, from top to bottom: estimate, interval, null."""
    ax.plot(rows["null"], range(len(rows)), "D", color=RANDOM, fillstyle="none")
    estimates(ax, [_short(name.replace("_", " ")) for name in rows["measure"]], iterate(rows))


def hierarchy(result: "Result", **where: Unpack[Where]) -> "Axes":
    """PageRank of labels against what exchanged targets give; filled: labels whose depth differs from chance."""
    table = result.table
    timed = table["depth_q"] < 0.05
    with canvas(0.7, **where) as ax:
        reach = float(np.nanmax(table[["pagerank", "pagerank_null"]].to_numpy()))
        ax.plot([0, reach], [0, reach], **REFERENCE)
        for mask, style in ((~timed, "none"), (timed, "full")):
            part = table[mask]
            ax.plot(part["pagerank_null"], part["pagerank"], "o", color=SUPPORTING, fillstyle=style, alpha=0.7)
        ax.set(xlabel="PageRank with targets exchanged", ylabel="PageRank")
    return ax


def validation(summary: pd.DataFrame, **where: Unpack[Where]) -> "Axes":
    """Every method on every metric over all targets, with intervals; the circuit filled, one row per method.

    `summary` has one row per (stratum, method, metric), as `scircuit.perturbation.Validation.summary`.
    """
    every = summary[(summary["stratum"] == "all") & summary["estimate"].notna()]
    metrics = [name for name in _METRICS if name in set(every["metric"])]
    methods = list(dict.fromkeys(every["method"]))
    with canvas(0.2 + 0.075 * len(methods), **where) as ax:
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
                ax.axvline(chance, **REFERENCE)
        ax.set_yticks(range(len(methods)), [_short(method) for method in methods])
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.set(xlabel="mean over knock-downs")
        ax.legend(**ABOVE | {"bbox_to_anchor": (-0.3, 1)}, ncols=len(metrics), columnspacing=0.8, handlelength=0.8)
    return ax


def _short(name: str, limit: int = 30) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
