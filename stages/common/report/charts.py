"""Charts as inline SVG in the page's own colours; the same numbers give the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

PALETTE = ("#6b7280", "#2563eb", "#d97706", "#059669", "#c026d3", "#dc2626")
LEFT, WIDTH, LINE, DOT = 130, 460, 15, 3.5


@dataclass(frozen=True)
class Point:
    """A value, its 95 % interval and where it belongs on the other axis (a label, or a number)."""

    at: str | float
    value: float
    low: float
    high: float


def colour(position: int) -> str:
    """Return the colour of the candidate at `position`."""
    return PALETTE[position % len(PALETTE)]


def legend(names: Sequence[str]) -> str:
    """Return the names, each beside its colour."""
    items = (f'<span><i style="background:{colour(n)}"></i>{escape(name)}</span>' for n, name in enumerate(names))
    return f'<p class="legend">{"".join(items)}</p>'


def dots(series: Mapping[str, Sequence[Point]], low: float, high: float, mark: float | None = None) -> str:
    """Return a row a label with one dot and whisker a series, on a scale from `low` to `high`; `mark` is a line."""
    labels = list(dict.fromkeys(str(point.at) for points in series.values() for point in points))
    block = LINE * len(series) + 8
    height = block * len(labels) + 26
    parts = _scale(low, high, height, mark)
    for row, label in enumerate(labels):
        middle = row * block + block / 2 + 4
        parts.append(f'<text x="{LEFT - 10}" y="{middle:.1f}" class="label">{escape(label)}</text>')
        for position, points in enumerate(series.values()):
            y = row * block + 10 + position * LINE
            parts += [_dot(point, y, low, high, position) for point in points if str(point.at) == label]
    return _svg(LEFT + WIDTH + 30, height, parts)


def lines(series: Mapping[str, Sequence[Point]], title: str, *, size: tuple[int, int] = (300, 170)) -> str:
    """Return values over numbers as a line a series, with whiskers where an interval is not empty."""
    width, height = size
    points = [point for one in series.values() for point in one]
    if not points:
        return ""
    across = _spread([float(point.at) for point in points])
    upward = _spread([edge for point in points for edge in (point.low, point.high, point.value)])
    box = (46.0, 26.0, width - 12.0, height - 22.0)
    parts = [f'<text x="{width / 2:.0f}" y="14" class="title">{escape(title)}</text>', _frame(box, across, upward)]
    for position, one in enumerate(series.values()):
        drawn = [(_place(float(point.at), across, box[0], box[2]), point) for point in one]
        path = " ".join(f"{x:.1f},{_place(point.value, upward, box[3], box[1]):.1f}" for x, point in drawn)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour(position)}" stroke-width="1.4"/>')
        for x, point in drawn if len(drawn) <= 30 else []:
            bottom, top = (_place(edge, upward, box[3], box[1]) for edge in (point.low, point.high))
            stroke = f'stroke="{colour(position)}"'
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{top:.1f}" {stroke}/>')
            y = _place(point.value, upward, box[3], box[1])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour(position)}"/>')
    return _svg(width, height, parts)


def thinned(points: Sequence[Point], most: int = 150) -> list[Point]:
    """Return at most `most` points, each the mean of as many neighbours: a loss curve that can be read."""
    size = max(1, -(-len(points) // most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = [(sum(float(p.at) for p in group), sum(p.value for p in group), len(group)) for group in groups]
    return [Point(at / count, value / count, value / count, value / count) for at, value, count in means]


def _dot(point: Point, y: float, low: float, high: float, position: int) -> str:
    x, left, right = (
        LEFT + WIDTH * min(1.0, max(0.0, (value - low) / (high - low)))
        for value in (point.value, point.low, point.high)
    )
    return (
        f'<g stroke="{colour(position)}" fill="{colour(position)}">'
        f"<title>{point.value:.4g} [{point.low:.4g}, {point.high:.4g}]</title>"
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}"/></g>'
    )


def _scale(low: float, high: float, height: float, mark: float | None) -> list[str]:
    parts = []
    for step in range(5):
        x, value = LEFT + WIDTH * step / 4, low + (high - low) * step / 4
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{height - 20}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" class="tick">{value:.0%}</text>')
    if mark is not None:
        x = LEFT + WIDTH * (mark - low) / (high - low)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{height - 20}" class="mark"/>')
    return parts


def _frame(box: tuple[float, ...], across: tuple[float, float], upward: tuple[float, float]) -> str:
    left, top, right, bottom = box
    return (
        f'<path d="M{left} {top}V{bottom}H{right}" class="axis"/>'
        f'<text x="{left - 4}" y="{top + 4}" class="end">{upward[1]:.3g}</text>'
        f'<text x="{left - 4}" y="{bottom}" class="end">{upward[0]:.3g}</text>'
        f'<text x="{left}" y="{bottom + 14}" class="tick">{across[0]:.4g}</text>'
        f'<text x="{right}" y="{bottom + 14}" class="tick">{across[1]:.4g}</text>'
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _place(value: float, scale: tuple[float, float], start: float, end: float) -> float:
    return start + (end - start) * (value - scale[0]) / (scale[1] - scale[0])


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">{"".join(parts)}</svg>'
