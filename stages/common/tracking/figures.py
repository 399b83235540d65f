"""Figures for MLflow, drawn without a screen."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bars(counts: Mapping[str, int], title: str) -> "Figure":
    """Return a bar a name, the longest on top, with its number beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted(counts, key=lambda name: counts[name])
    figure = Figure(figsize=(8, 1.5 + 0.4 * len(names)), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title)
    axes.bar_label(axes.barh(names, [counts[name] for name in names]))
    return figure
