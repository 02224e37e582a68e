"""What every figure shares: size, type, colours that survive colour blindness, and inline SVG for the page."""

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from scircuit._io import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN_INCHES = 85 / 25.4
"""Width of one journal column."""

# Okabe and Ito's palette: told apart with every common colour vision and in grey.
SUPPORTING = "#0072B2"
SUPPRESSING = "#D55E00"
RANDOM = "#767676"
INK = "#1f2328"
ON_DARK, ON_LIGHT = "#fefefe", "#010101"
"""Ink on a coloured ground, which stays as it is on a dark page."""
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

STYLE: Any = {
    # DejaVu ships with matplotlib, so that sizes are measured alike everywhere.
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    # Names come from user files: a dollar sign is a dollar sign.
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "scircuit",
}

REFERENCE: Any = {"color": INK, "linewidth": 0.6, "linestyle": (0, (2, 2))}
"""How a line of reference looks: no difference, no effect, chance."""
ABOVE: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0}
"""Where the legend of a full figure stands."""


_DIGITS = re.compile(r"(\.\d\d)\d+")


class Where(TypedDict, total=False):
    """Where a figure goes; every figure takes these."""

    ax: "Axes | None"
    """Axes to draw on; without, a figure one column (85 mm) wide is made, outside pyplot unless it is shown."""
    show: bool | None
    """Call `matplotlib.pyplot.show` at the end."""
    save: str | Path | None
    """Path to write the figure to; its suffix names the format."""


@contextmanager
def canvas(height: float, **where: Unpack[Where]) -> "Iterator[Axes]":
    """Axes in the report's style; `height` of a figure made here is a share of its width."""
    import matplotlib

    ax, show, save = where.get("ax"), where.get("show"), where.get("save")
    with matplotlib.rc_context(STYLE):
        drawn = _new_axes((COLUMN_INCHES, COLUMN_INCHES * height), bool(show)) if ax is None else ax
        yield drawn
        if save is not None:
            _save(drawn, Path(save))
        if show:
            import matplotlib.pyplot

            matplotlib.pyplot.show()


def _new_axes(size: tuple[float, float], show: bool) -> "Axes":
    if show:
        import matplotlib.pyplot

        return matplotlib.pyplot.figure(figsize=size, layout="constrained").subplots()
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()


def _save(ax: "Axes", path: Path) -> None:
    kind = path.suffix.lstrip(".") or "pdf"
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with atomic(path) as temporary:
        ax.get_figure(root=True).savefig(temporary, format=kind, dpi=300, metadata=undated)  # type: ignore[union-attr]


def inline_svg(ax: "Axes", name: str, title: str) -> str:
    """SVG markup of the figure of `ax`, ready to stand inside an HTML page.

    Ids get the prefix `name` (one page holds many figures), the style sheet that matplotlib would apply to
    the whole page becomes attributes of this picture alone, dates and metadata are left out so that the same
    table gives the same bytes, and text takes the page's font.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer, figure = io.StringIO(), ax.get_figure(root=True)
    assert figure is not None
    with matplotlib.rc_context(STYLE):
        engine = figure.get_layout_engine()
        if engine is not None:
            # `savefig` would draw the whole figure an extra time to lay it out.
            FigureCanvasSVG(figure)
            figure.set_dpi(72)
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Hundredths of a point are less than anyone sees, and a scatter is mostly digits.
    svg = re.sub(r'(?<= )(x|y|d)="[^"]*"', lambda found: _DIGITS.sub(r"\1", found[0]), svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', svg)
    svg = svg.replace("'DejaVu Sans'", "inherit")
    # Ink and paper are the page's own, which may be dark.
    svg = svg.replace(INK, "currentColor").replace(": #ffffff", ": var(--page)")
    svg = re.sub(r"font: ([0-9.]+px) inherit", r"font-size: \1", svg)
    width, height = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', svg).groups()  # type: ignore[union-attr]
    body = svg[svg.index(">") + 1 :]
    return (
        f'<svg class="figure" role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height}" '
        f'style="stroke-linejoin:round;stroke-linecap:butt" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )


def estimates(ax: "Axes", names: Sequence[str], rows: Iterable[Any], colour: str | Sequence[str] = SUPPORTING) -> None:
    """A row per estimate from top to bottom, with its interval where it has one; `rows` have `estimate, low, high`."""
    colours = [colour] * len(names) if isinstance(colour, str) else colour
    for y, (row, shade) in enumerate(zip(rows, colours, strict=True)):
        if math.isfinite(row.low):
            ax.hlines(y, row.low, row.high, color=shade, linewidth=1.6)
        ax.plot(row.estimate, y, "o", color=shade)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)


def sparse_ticks(values: list[int]) -> list[int]:
    """At most ten ticks, always with the first."""
    return values[:: max(1, -(-len(values) // 10))]


def plain_log(axis: Any) -> None:
    """Write 0.01 and 100 instead of powers, which need the mathematical type that labels must not have.

    Called once the data are drawn: over less than two decades, 2 and 5 are written too, so that two ticks are named.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    if low > 0 and high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
