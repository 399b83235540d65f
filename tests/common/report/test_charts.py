"""Charts: every value is drawn, in its place, and data cannot leave its text."""

from xml.etree import ElementTree

from stages.common.report import charts
from stages.common.report.charts import Point

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_a_dot_stands_at_its_value_between_the_ends_of_its_interval() -> None:
    root = parsed(charts.dots({"one": [Point("iid", 0.5, 0.25, 1.0)]}, 0.0, 1.0, mark=0.5))
    (group,) = root.iter(f"{SVG}g")
    line, circle = group.find(f"{SVG}line"), group.find(f"{SVG}circle")
    assert line is not None and circle is not None
    half = charts.LEFT + charts.WIDTH / 2
    assert float(circle.get("cx", "")) == half
    assert (float(line.get("x1", "")), float(line.get("x2", ""))) == (half - 115, half + 230)
    assert group.findtext(f"{SVG}title") == "0.5 [0.25, 1]"
    assert [mark.get("x1") for mark in root.iter(f"{SVG}line") if mark.get("class") == "mark"] == [f"{half:.1f}"]


def test_a_row_a_label_and_a_dot_a_series() -> None:
    points = [Point("iid", 0.5, 0.4, 0.6), Point("general", 0.9, 0.8, 1.0)]
    root = parsed(charts.dots({"one": points, "two": points[:1]}, 0.0, 1.0))
    assert len(list(root.iter(f"{SVG}circle"))) == 3
    assert [one.text for one in root.iter(f"{SVG}text") if one.get("class") == "label"] == ["iid", "general"]


def test_a_line_passes_through_its_points_upwards() -> None:
    root = parsed(charts.lines({"one": [Point(0, 1.0, 1.0, 1.0), Point(5, 2.0, 2.0, 2.0)]}, "loss"))
    (line,) = root.iter(f"{SVG}polyline")
    (left, bottom), (right, top) = (map(float, pair.split(",")) for pair in line.get("points", "").split())
    assert left < right
    assert top < bottom


def test_one_point_and_none_are_no_error() -> None:
    assert "circle" in charts.lines({"one": [Point(1, 0.5, 0.5, 0.5)]}, "one")
    assert charts.lines({"one": []}, "none") == ""


def test_labels_are_escaped() -> None:
    bad = "<script>alert(1)</script>&"
    drawn = charts.dots({bad: [Point(bad, 0.5, 0.4, 0.6)]}, 0.0, 1.0) + charts.lines({bad: [Point(1, 1, 1, 1)]}, bad)
    assert "<script" not in drawn + charts.legend([bad])


def test_thinning_keeps_the_mean_and_short_curves() -> None:
    points = [Point(step, float(step), 0.0, 0.0) for step in range(10)]
    assert charts.thinned(points, most=10) == [Point(p.at, p.value, p.value, p.value) for p in points]
    thin = charts.thinned(points, most=5)
    assert [(point.at, point.value) for point in thin] == [(0.5, 0.5), (2.5, 2.5), (4.5, 4.5), (6.5, 6.5), (8.5, 8.5)]
