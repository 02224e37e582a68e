"""Figures of the circuit as a whole: how few latents carry a behaviour, and which of them matter."""

from typing import TYPE_CHECKING, Unpack

from scircuit.analysis.circuit_curve import WORDS
from scircuit.report.canvas import (
    ABOVE,
    RANDOM,
    REFERENCE,
    SERIES,
    SUPPORTING,
    SUPPRESSING,
    Where,
    canvas,
    estimates,
    plain_log,
    sparse_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scircuit.analysis.result import Result

WAYS = {
    f"{measure}{ending}": f"{short}{way}"
    for ending, way in (("", ""), ("_zero", ", zero"), ("_mean", ", mean"), ("_without_error", ", no SAE error"))
    for measure, short in (("faithfulness", "alone"), ("completeness", "without"))
}


def faithfulness(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Shares of the behaviour carried by the circuit alone and left without it, beside random circuits."""
    known = [result[name] for name in result.measures["measure"] if name != "probe_accuracy"]
    names = [WAYS[measure.measure] for measure in known]
    with canvas(0.24 + 0.09 * len(known), **where) as ax:
        for level in (0, 1):
            ax.axvline(level, **REFERENCE)
        ax.plot([measure.null for measure in known], range(len(known)), "D", color=RANDOM, fillstyle="none")
        colours = [SUPPORTING if name.startswith("alone") else SUPPRESSING for name in names]
        estimates(ax, names, known, colours)
        ax.set(xlabel="share of the behaviour")
    return ax


def circuit_curve(result: "Result", **where: Unpack[Where]) -> "Axes":
    """Faithfulness against the share kept, one line per order; latents full, edges dotted."""
    colours = dict(zip(WORDS, (*SERIES[:5], RANDOM), strict=True))
    with canvas(0.9, **where) as ax:
        ax.axhline(1, **REFERENCE)
        for (unit, order), mine in result.table.groupby(["unit", "order"], sort=False):
            label = WORDS[str(order)] if unit == "node" else None
            line = "-" if unit == "node" else ":"
            ax.plot(mine["share"], mine["faithfulness"], line, color=colours[str(order)], label=label)
        ax.set_xscale("log")
        plain_log(ax.xaxis)
        ax.set(xlabel="share of latents (dotted: of edges) kept", ylabel="faithfulness")
        ax.legend(**ABOVE, ncols=2, columnspacing=1, handlelength=1.4)
    return ax


def circuit_tests(result: "Result", **where: Unpack[Where]) -> "Axes":
    """What taking away each member changes, beside the change that nine tenths of random latents stay below."""
    table = result.table.assign(rank=range(1, len(result.table) + 1))
    with canvas(0.72, **where) as ax:
        for matters, colour, label in ((True, SUPPORTING, "matters"), (False, RANDOM, "does not")):
            mine = table[table["matters"] == matters]
            ax.plot(mine["rank"], mine["change"], "o", color=colour, label=f"{label} ({len(mine)})")
        ax.axhline(float(table["random"].iloc[0]), **REFERENCE)
        ax.set_ylim(bottom=0)
        ax.set_xticks(sparse_ticks(table["rank"].tolist()))
        ax.set(xlabel="member of the circuit, by what it changes", ylabel="mean change of the behaviour")
        ax.legend()
    return ax
