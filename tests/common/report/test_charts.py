"""Charts: every value is drawn, in its place, and data cannot leave its text."""

import re
from xml.etree import ElementTree

import pytest

from stages.common.report import charts
from stages.common.report.charts import Point

COLOURS = charts.colours(["one", "two"])


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("xlink:", ""))


def marks(root: ElementTree.Element, series: str) -> list[tuple[float, float]]:
    """Return where the dots of a series are."""
    found = [one for one in root.iter("use") if f"fill: {COLOURS[series]}" in one.get("style", "")]
    return [(float(one.get("x", "")), float(one.get("y", ""))) for one in found]


def labels(root: ElementTree.Element) -> dict[str, float]:
    """Return each text with its place across."""
    return {one.text or "": float(one.get("x", "0")) for one in root.iter("text")}


def strokes(root: ElementTree.Element, colour: str) -> list[list[float]]:
    """Return the numbers of each path of a colour."""
    drawn = [one for one in root.iter("path") if f"stroke: {colour}" in one.get("style", "")]
    return [[float(number) for number in re.findall(r"[\d.]+", one.get("d", ""))] for one in drawn]


def test_a_dot_stands_at_its_value_between_the_ends_of_its_interval() -> None:
    root = parsed(charts.dots({"one": [Point("iid", 0.5, 0.25, 1.0)]}, COLOURS, mark=0.75))
    at = labels(root)
    ((x, y),) = marks(root, "one")
    assert x == pytest.approx(at["50%"])
    whisker = next(path for path in strokes(root, COLOURS["one"]) if len(path) == 4 and path[1] == path[3])
    assert whisker == pytest.approx([at["25%"], y, at["100%"], y])
    (mark,) = strokes(root, charts.PALETTE[-1])
    assert mark[0] == mark[2] == pytest.approx(at["75%"])


def test_a_row_a_label_and_a_dot_a_series() -> None:
    points = [Point("iid", 0.5, 0.4, 0.6), Point("general", 0.9, 0.8, 1.0)]
    root = parsed(charts.dots({"one": points, "two": points[:1]}, COLOURS))
    assert {"iid", "general"} < set(labels(root))
    (first, second), (beside,) = marks(root, "one"), marks(root, "two")
    assert first[1] < beside[1] < second[1], "rows go down, and the series of a row stand below each other"
    assert first[0] == beside[0] < second[0]


def test_a_line_passes_through_its_points_upwards() -> None:
    root = parsed(charts.lines({"one": [Point(0, 1.0, 1.0, 1.0), Point(5, 2.0, 2.0, 2.0)]}, COLOURS, "loss"))
    (left, bottom), (right, top) = marks(root, "one")
    assert left < right
    assert top < bottom
    assert [left, bottom, right, top] in strokes(root, COLOURS["one"])
    assert "loss" in labels(root)


def test_one_point_and_none_are_no_error() -> None:
    assert len(marks(parsed(charts.lines({"one": [Point(1, 0.5, 0.5, 0.5)]}, COLOURS, "one")), "one")) == 1
    assert charts.lines({"one": []}, COLOURS, "none") == ""


def test_a_value_beside_its_interval_is_drawn() -> None:
    root = parsed(charts.dots({"one": [Point("iid", 0.5, 0.6, 0.7)]}, COLOURS))
    assert len(marks(root, "one")) == 1


@pytest.mark.parametrize("bad", ["<script>alert(1)</script>&", "$\\frac{1}{2}$ costs $5"])
def test_labels_are_text(bad: str) -> None:
    colours = charts.colours([bad])
    dots = charts.dots({bad: [Point(bad, 0.5, 0.4, 0.6)]}, colours)
    lines = charts.lines({bad: [Point(1, 1, 1, 1)]}, colours, bad)
    assert "<script" not in dots + lines
    assert bad in labels(parsed(dots))
    assert bad in labels(parsed(lines))


def test_the_page_decides_on_light_or_dark_and_on_the_ids() -> None:
    drawn = charts.dots({"one": [Point("iid", 0.5, 0.4, 0.6)]}, COLOURS)
    assert "currentColor" in drawn
    assert charts.INK not in drawn
    assert all(re.fullmatch(r"[mp][0-9a-f]{10}", one) for one in re.findall(r' id="([^"]*)"', drawn))


def test_thinning_keeps_the_mean_and_short_curves() -> None:
    points = [Point(step, float(step), 0.0, 0.0) for step in range(10)]
    assert charts.thinned(points, most=10) == [Point(p.at, p.value, p.value, p.value) for p in points]
    thin = charts.thinned(points, most=5)
    assert [(point.at, point.value) for point in thin] == [(0.5, 0.5), (2.5, 2.5), (4.5, 4.5), (6.5, 6.5), (8.5, 8.5)]
