"""Likes survive: whole lines, one a like, from many writers, even after a line that was cut."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.common.annotation import feedback
from stages.common.annotation.feedback import Opinion
from stages.common.runtime.errors import DataError


def opinion(number: int) -> Opinion:
    turns = [{"role": "user", "content": f"question {number}\nof two lines"}]
    return Opinion(
        messages=turns, response="答案", liked=number % 2 == 0, model="lathe", version="3", weights_sha256="f" * 64
    )


def test_what_is_appended_is_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "feedback/page.jsonl"
    assert list(feedback.read(file)) == []
    given = [opinion(number) for number in range(3)]
    for one in given:
        feedback.append(file, one)
    assert list(feedback.read(file)) == given
    assert given[0].time.endswith("+00:00")


def test_many_writers_leave_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "page.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: feedback.append(file, opinion(number)), range(64)))
    assert sorted(one.messages[0]["content"] for one in feedback.read(file)) == sorted(
        opinion(number).messages[0]["content"] for number in range(64)
    )


def test_a_line_that_was_cut_stays_alone_and_is_named(tmp_path: Path) -> None:
    file = tmp_path / "page.jsonl"
    feedback.append(file, opinion(0))
    with file.open("a") as handle:
        handle.write('{"time": "20')
    feedback.append(file, opinion(1))
    assert file.read_text().count("\n") == 3
    with pytest.raises(DataError, match=r"page\.jsonl:2"):
        list(feedback.read(file))


def test_a_full_store_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.jsonl"
    feedback.append(file, opinion(0))
    monkeypatch.setattr(feedback, "BYTES_AT_MOST", file.stat().st_size + 10)
    with pytest.raises(DataError, match="the store of feedback is full"):
        feedback.append(file, opinion(1))
    assert len(list(feedback.read(file))) == 1
