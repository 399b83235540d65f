"""Suites as data, and pages that are the same bytes each time."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from stages.common.core.records import SHAPES
from stages.common.validate.great_expectations import SUITES, Door


def test_a_frame_is_forgotten_once_it_is_checked_and_its_failures_are_not(tmp_path: Path) -> None:
    from pandas import DataFrame

    door = Door(tmp_path / "docs", tmp_path / "work")
    for number in range(3):
        frame = DataFrame({"id": [f"a:{number}", "b"], "difference": ["x", None]}, dtype=object)
        alive = weakref.ref(frame)
        door.check("schema", f"schema.{number}", frame)
        del frame
        assert alive() is None
    (finding,) = door.findings.values()
    assert (finding.evaluated, finding.unexpected, finding.rows) == (6, 3, {"a:0": "x", "a:1": "x", "a:2": "x"})
    door.write_docs()
    assert len(list((tmp_path / "docs/validations").rglob("*.html"))) == 3
    assert all("newsletter" not in page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html"))


def test_pages_keep_no_time_no_time_zone_and_no_random_id() -> None:
    page = 'x 20261121T032732.739206Z y 2000-01-01 08:00:00 CST z 1999-12-31T19:00:00Z <img src="https://a.b/logo-long.png?d=2"'
    one = "826df3a3-ac70-4bea-aa91-82666ebcc62b"
    two = one.replace("8", "9")
    from stages.common.validate.data_docs_store import settled  # it takes seconds to import

    assert settled(f"{page} {one} {two} {one}", "logo.png") == (
        "x 20000101T000000.000000Z y 2000-01-01 00:00:00 UTC z 2000-01-01 00:00:00 UTC "
        '<img src="logo.png" id-0 id-1 id-0'
    )
    panel = "<p>a</p>\n<footer>\n  <p>with our newsletter <a href='https://a.b'>Subscribe</a></p>\n</footer>\n"
    assert settled(f"<footer>ours</footer>{panel}<footer>b</footer>", "logo.png") == (
        "<footer>ours</footer><p>a</p>\n<footer>b</footer>"
    )


@pytest.mark.parametrize("file", sorted(SUITES.glob("*.json")), ids=lambda path: path.stem)
def test_a_suite_says_what_each_expectation_is_for_and_names_none_twice(file: Path) -> None:
    suite: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert suite["name"] == file.stem
    assert all(entry["description"] and entry["severity"] in ("critical", "warning") for entry in suite["expectations"])
    names = [(entry["type"], entry["kwargs"]["column"]) for entry in suite["expectations"]]
    assert len(names) == len(set(names))


def test_there_is_a_suite_for_every_shape() -> None:
    assert {file.stem for file in SUITES.glob("*.json")} == {
        *SHAPES,
        "schema",
        "ids",
        "contents",
        "sources",
        "categories",
    }
