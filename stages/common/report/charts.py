"""Charts as inline SVG, drawn by matplotlib in the page's own ink; the same numbers give the same
bytes.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Series = Mapping[str, Sequence["Point"]]

PALETTE = ("#6b7280", "#2563eb", "#d97706", "#059669", "#c026d3", "#dc2626")
INK = "#010203"
"""Stands for `currentColor`, which matplotlib does not know: the page is light or dark as the
reader likes.
"""
NEEDLESS = re.compile(r' (?:xmlns(?::xlink)?="[^"]*"|id="[a-zA-Z._0-9]+_[0-9]+")|^ +', re.MULTILINE)
"""Name spaces that HTML knows, and names of groups, which would be the same in each chart of the
page.
"""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "lathe",  # ids by content, not by chance
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # matplotlib's own, by which it measures
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.2,
    **dict.fromkeys(("text.color", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK),
}


@dataclass(frozen=True)
class Point:
    """A value, its 95 % interval and where it belongs on the other axis (a label, or a number)."""

    at: str | float
    value: float
    low: float
    high: float


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return each name's colour, the same in every chart of a page."""
    return {name: PALETTE[position % len(PALETTE)] for position, name in enumerate(names)}


def dots(series: Series, colour: Mapping[str, str], mark: float | None = None) -> Markup:
    """Return a row a label with one dot and whisker a series, on a scale from 0 to 1; `mark` is a
    line.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    labels = list(dict.fromkeys(str(point.at) for points in series.values() for point in points))
    apart = 0.8 / len(series)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 0.35 + len(labels) * (len(series) * 0.16 + 0.1)))
        axes = figure.add_subplot(xlim=(0, 1), ylim=(len(labels) - 0.5, -0.5))
        for position, (name, points) in enumerate(series.items()):
            rows = [labels.index(str(point.at)) - 0.4 + (position + 0.5) * apart for point in points]
            values = [point.value for point in points]
            axes.errorbar(values, rows, xerr=_whiskers(points), fmt="o", ms=4.5, color=colour[name], clip_on=False)
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="x")
        if mark is not None:
            axes.axvline(mark, color=PALETTE[-1], linestyle="--", linewidth=1)
        return _svg(figure)


def lines(series: Series, colour: Mapping[str, str], title: str) -> Markup:
    """Return values over numbers as a line a series, with dots and whiskers where there are few."""
    import matplotlib
    from matplotlib.figure import Figure

    if not any(series.values()):
        return Markup("")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2, 1.9))
        axes = figure.add_subplot()
        axes.set_title(title, parse_math=False)
        for name, points in series.items():
            few = len(points) <= 30
            across, values = [float(point.at) for point in points], [point.value for point in points]
            spread = _whiskers(points) if few else None
            axes.errorbar(across, values, spread, fmt="o-" if few else "-", ms=3, lw=1.2, color=colour[name])
        return _svg(figure)


def thinned(points: Sequence[Point], most: int = 150) -> list[Point]:
    """Return at most `most` points, each the mean of as many neighbours: a loss curve that can be
    read.
    """
    size = max(1, -(-len(points) // most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = [(sum(float(p.at) for p in group), sum(p.value for p in group), len(group)) for group in groups]
    return [Point(at / count, value / count, value / count, value / count) for at, value, count in means]


def _whiskers(points: Sequence[Point]) -> list[list[float]]:
    return [[max(0.0, p.value - p.low) for p in points], [max(0.0, p.high - p.value) for p in points]]


def _svg(figure: "Figure") -> Markup:
    written = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    whole = written.getvalue()
    drawn = whole[whole.index("<svg") :].replace(INK, "currentColor")
    return Markup(NEEDLESS.sub("", drawn))
