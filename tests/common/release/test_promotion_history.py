"""The history of promotions: appended, on the disk, whole lines only, and nothing said twice."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from stages.common.release import promotion_history


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def facts(version: int, action: str = "promoted") -> dict[str, Any]:
    return {
        "name": "lathe",
        "version": str(version),
        "action": action,
        "reason": "因为 better",
        "from": None,
        "to": "1",
    }


def test_a_line_says_who_when_what_and_why() -> None:
    assert promotion_history.append(facts(1), by="ann")
    (line,) = promotion_history.read()
    assert line["who"] == "ann"
    assert line["time"].endswith("Z")
    assert facts(1).items() <= line.items()
    promotion_history.append(facts(2))
    assert promotion_history.read()[1]["who"] == promotion_history.who()


def test_what_the_last_line_of_a_version_says_is_not_said_again() -> None:
    assert [
        promotion_history.append(facts(1)),
        promotion_history.append(facts(1)),
        promotion_history.append(facts(2)),
    ] == [
        True,
        False,
        True,
    ]
    assert not promotion_history.append(facts(1))
    assert promotion_history.append(facts(1, "rolled back"))
    assert promotion_history.append(facts(1)), "it is news after something else happened to the version"
    assert [line["version"] for line in promotion_history.read()] == ["1", "2", "1", "1"]


@pytest.mark.parametrize("torn", ["", '{"name": "lathe", "ver', "\x00\x00\x00\x00", "[1, 2]", '"text"'])
def test_a_torn_last_line_hides_nothing_before_or_after_it(torn: str) -> None:
    promotion_history.append(facts(1))
    with promotion_history.HISTORY.open("a") as handle:
        handle.write(torn)
    assert [line["version"] for line in promotion_history.read()] == ["1"]
    promotion_history.append(facts(2))
    assert [line["version"] for line in promotion_history.read()] == ["1", "2"]
    lines = promotion_history.HISTORY.read_text().splitlines()
    assert json.loads(lines[0])["version"] == "1", "what was written is never rewritten"


def many(writer: int) -> None:
    for number in range(20):
        promotion_history.append(facts(1000 * writer + number))


def test_writers_at_once_lose_nothing() -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(many, range(4))
    assert len(promotion_history.read()) == 80
    assert len({line["version"] for line in promotion_history.read()}) == 80
