"""Figures of how far the answers hold: other cells, thresholds, sources, explanations."""

from typing import TYPE_CHECKING, Unpack

import numpy as np

from scircuit.report.canvas import (
    ABOVE,
    INK,
    RANDOM,
    REFERENCE,
    SERIES,
    SUPPORTING,
    SUPPRESSING,
    Where,
    canvas,
    estimates,
    plain_log,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scircuit.analysis.result import Result

MAX_POINTS = 3000
"""Points of a scatter; beyond, every n-th row of the table is drawn."""
BINS = 20
"""Groups of equally many edges along a correlation."""


def stability(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Agreement of two disjoint samples of the cells, and of a sample with all cells, against the sample's size."""
    split, subset = (
        result.table[result.table["comparison"] == name].sort_values("n_cells") for name in ("split", "subset")
    )
    with canvas(0.72, **where) as ax:
        for field, name, colour, marker in (
            ("r", "r of d", SERIES[2], "s"),
            ("jaccard", "Jaccard of edges", SERIES[0], "o"),
        ):
            ax.plot(split["n_cells"], split[field], f"{marker}-", color=colour, label=name)
            ax.plot(subset["n_cells"], subset[field], f"{marker}:", color=colour, fillstyle="none", linewidth=0.8)
        ax.plot(split["n_cells"], split["expected_jaccard"], "D--", color=RANDOM, linewidth=0.8, label="by chance")
        ax.set_xscale("log")
        ticks = sorted({*split["n_cells"], *subset["n_cells"]})
        ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
        ax.minorticks_off()
        ax.set_ylim(min(0, ax.get_ylim()[0]), 1.04)
        ax.set(xlabel="cells in a sample", ylabel="agreement")
        ax.legend(**ABOVE, ncols=3, columnspacing=1, handlelength=1.4)
    return ax


def seed_stability(result: "Result", **where: Unpack[Where]) -> "Axes":
    """d of the edges that two dictionaries share, one against the other; edges of one of them lie on its axis."""
    with np.errstate(invalid="ignore"):
        table = result.table[["d_first", "d_second"]].replace([np.inf, -np.inf], np.nan)
    both = table.notna().all(axis=1)
    drawn = table.iloc[:: max(1, len(table) // MAX_POINTS)].fillna(0.0)
    with canvas(0.85, **where) as ax:
        for chosen, colour, marker, label in (
            (~both, RANDOM, ".", f"edge of one ({int((~both).sum()):,})"),
            (both, SUPPORTING, "o", f"edge of both ({int(both.sum()):,})"),
        ):
            part = drawn[chosen.loc[drawn.index]]
            ax.plot(part["d_first"], part["d_second"], marker, color=colour, alpha=0.5, markersize=2.6, label=label)
        ends = [float(drawn.min().min()), float(drawn.max().max())] if len(drawn) else [0.0, 1.0]
        ax.plot(ends, ends, **REFERENCE)
        ax.set(xlabel="d, this dictionary", ylabel="d, the other seed's")
        ax.legend(loc="upper left")
    return ax


def replication(result: "Result", **where: Unpack[Where]) -> "Axes":
    """d of the edges in the confirmation cells against that of discovery, with the slope through the origin."""
    table = result.table[np.isfinite(result.table[["discovery_d", "cohens_d"]]).all(axis=1)]
    table = table.iloc[:: max(1, len(table) // MAX_POINTS)]
    reach = float(table["discovery_d"].abs().max()) * np.array([-1.0, 1.0])
    with canvas(0.85, **where) as ax:
        ax.axhline(0, color=INK, linewidth=0.4)
        ax.plot(reach, reach, **REFERENCE)
        ax.plot(reach, result["slope"].estimate * reach, color=SERIES[2], label=f"slope {result['slope'].estimate:.2f}")
        for again, name, colour, marker in ((True, "found again", SUPPORTING, "o"), (False, "not", RANDOM, "D")):
            part = table[table["replicated"] == again]
            label = f"{name} ({int((result.table['replicated'] == again).sum()):,})"
            ax.plot(part["discovery_d"], part["cohens_d"], marker, color=colour, alpha=0.4, markersize=2.4, label=label)
        frame = (1.05 * reach[0], 1.05 * reach[1])  # every d of discovery; one of two or three cells may lie outside
        ax.set(xlabel="d in the discovery cells", ylabel="d in the confirmation cells", xlim=frame, ylim=frame)
        ax.legend(loc="upper left")
    return ax


def group_stability(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Agreement of pairs of groups of cells: Jaccard of the edges and r of d, beside chance."""
    names = result.table["group_name"].astype(str)
    order = list(dict.fromkeys(names))
    y = names.map({name: row for row, name in enumerate(order)}).to_numpy(dtype=float)
    with canvas(0.34 + 0.16 * len(order), **where) as ax:
        for shift, field, label, marker, colour in (
            (-0.2, "r", "r of d", "s", SERIES[2]),
            (0.0, "jaccard", "Jaccard", "o", SERIES[0]),
            (0.2, "expected_jaccard", "by chance", "D", RANDOM),
        ):
            ax.plot(result.table[field], y + shift, marker, color=colour, alpha=0.7, label=label)
        ax.set_yticks(range(len(order)), order)
        ax.set_ylim(len(order) - 0.5, -0.5)
        ax.set_xlim(min(0.0, ax.get_xlim()[0]), 1.02)
        ax.set(xlabel="agreement of two groups: r of d, Jaccard of edges")
        ax.legend(**ABOVE, ncols=3, columnspacing=1, handlelength=1)
    return ax


def threshold_sweep(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Number of edges over thresholds on |d|, one line per threshold on q, beside random directions."""
    from matplotlib import colormaps

    levels = sorted(result.table["max_q"].unique())
    with canvas(0.68, **where) as ax:
        for row, level in enumerate(levels):
            part = result.table[result.table["max_q"] == level].sort_values("min_abs_d")
            shade = colormaps["viridis"](0.25 + 0.55 * row / max(len(levels) - 1, 1))
            own = part["n_edges"].where(part["n_edges"] > 0)
            chance = (part["random_per_edge"] * part["n_edges"]).where(part["n_random_edges"] > 0)
            ax.plot(part["min_abs_d"], own, "o-", color=shade, label=f"q < {level:g}")
            ax.plot(part["min_abs_d"], chance, "--", color=shade, linewidth=0.7)
        ax.set_yscale("log")
        plain_log(ax.yaxis)
        ax.set(xlabel="threshold on |d|", ylabel="edges")
        ax.legend()
    return ax


def selection(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Edges per 1,000 tests of every source against its firing rate, annotated beside random sources."""
    with canvas(0.72, **where) as ax:
        for group, colour, marker in (("random", RANDOM, "D"), ("annotated", SUPPORTING, "o")):
            part = result.table[result.table["group"] == group]
            rate = 1000 * part["n_edges"] / part["n_tests"].where(part["n_tests"] > 0)
            ax.plot(part["frequency"], rate, marker, color=colour, alpha=0.6, label=f"{group} ({len(part):,})")
        ax.set_xscale("log")
        plain_log(ax.xaxis)
        ax.set_ylim(bottom=0)
        ax.set(xlabel="firing rate of the source", ylabel="edges per 1,000 tests")
        ax.legend()
    return ax


def coexpression(result: "Result", **where: Unpack[Where]) -> "Axes":
    """|d| of the edges over the correlation of their ends' genes, and of the latents themselves: median and quartiles.

    Every mark is a twentieth of the edges.
    """
    with canvas(0.72, **where) as ax:
        for field, name, colour, marker in (
            ("gene_r", "genes", SUPPORTING, "o"),
            ("latent_r", "latents", SERIES[3], "s"),
        ):
            known = result.table[[field, "abs_d"]].dropna()
            if known.empty:
                continue
            r = known[field].abs().to_numpy()
            order, n_bins = np.argsort(r, kind="stable"), min(BINS, len(r))
            bins = np.array_split(order, n_bins)
            size = known["abs_d"].to_numpy()
            low, middle, high = np.array([np.quantile(size[rows], [0.25, 0.5, 0.75]) for rows in bins]).T
            centre = [np.median(r[rows]) for rows in bins]
            ax.fill_between(centre, low, high, color=colour, alpha=0.18, linewidth=0)
            ax.plot(centre, middle, f"{marker}-", color=colour, markersize=2.6, label=f"of the {name}")
        ax.set(xlabel="|correlation| over cells", ylabel="|d| of the edges")
        ax.set_ylim(bottom=0)
        ax.legend()
    return ax


def mediation(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Shares of the response that mediators carry, as cumulative curves, beside random latents."""
    looks = {"mediator": (SUPPORTING, "-"), "random": (RANDOM, "--"), "joint": (SERIES[2], "-")}
    with canvas(0.68, **where) as ax:
        ax.axvline(0, **REFERENCE)
        for kind, (colour, line) in looks.items():
            share = np.sort(result.table.loc[result.table["kind"] == kind, "share"].dropna().to_numpy())
            if share.size:
                height = np.arange(1, share.size + 1) / share.size
                ax.step(share, height, where="post", color=colour, linestyle=line, label=f"{kind} ({share.size:,})")
        ax.set(xlabel="share of the response carried", ylabel="cumulative share", ylim=(0, 1.02))
        ax.legend(loc="lower right")
    return ax


def interactions(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Response to ablating a set against the sum of its parts; on the diagonal, effects add up."""
    looks = {"additive": (RANDOM, "."), "redundant": (SUPPORTING, "o"), "synergistic": (SUPPRESSING, "^")}
    table = result.table.iloc[:: max(1, len(result.table) // MAX_POINTS)]
    both = table[["mean_sum", "mean_response"]].to_numpy(dtype=float)
    ends = [np.nanmin(both, initial=0.0), np.nanmax(both, initial=0.0)]
    with canvas(0.85, **where) as ax:
        ax.plot(ends, ends, **REFERENCE)
        counts = result.table["effect"].value_counts()
        for effect, (colour, marker) in looks.items():
            part = table[table["effect"] == effect]
            label = f"{effect} ({counts.get(effect, 0):,})"
            ax.plot(
                part["mean_sum"], part["mean_response"], marker, color=colour, alpha=0.6, markersize=2.8, label=label
            )
        ax.set(xlabel="sum of the single responses", ylabel="response to the set")
        ax.legend(loc="upper left")
    return ax


def compare_effect_sizes(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Mean |d| of two circuits over the strata that both reach, and their difference, with intervals."""
    names = ["first", "second", "difference"]
    with canvas(0.4, **where) as ax:
        ax.axvline(0, **REFERENCE)
        estimates(ax, names, [result[name] for name in names])
        ax.set(xlabel="mean |d| at equal cells, depth and firing rate")
    return ax
