"""People's rankings: matched by the answers' texts, merged by mean rank, the last line of a person
counts.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common.annotation import ranking_store
from stages.common.ranking.samples import Sample
from stages.common.runtime.errors import DataError

SAMPLES = [Sample({"id": "p:1"}, ["a", "b", "c"], [False] * 3), Sample({"id": "p:2"}, ["d", "e"], [False] * 2)]


def store(folder: Path, *lines: Any) -> Path:
    file = folder / "rankings.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return file


def line(id: str, responses: list[str], ranks: list[int], annotator: str = "ann") -> dict[str, Any]:
    return {"id": id, "responses": responses, "ranks": ranks, "annotator": annotator, "time": "kept but not read"}


def test_answers_are_matched_by_text_whatever_their_order(tmp_path: Path) -> None:
    file = store(tmp_path, line("p:1", ["c", "a", "b"], [1, 2, 2]), "")
    assert ranking_store.merged(file, SAMPLES) == [[2, 2, 1], None]


def test_several_people_are_merged_by_mean_rank(tmp_path: Path) -> None:
    people = [("ann", [1, 2, 3]), ("bob", [2, 1, 3]), ("cyd", [1, 3, 2])]
    file = store(tmp_path, *(line("p:1", ["a", "b", "c"], ranks, name) for name, ranks in people))
    assert ranking_store.merged(file, SAMPLES)[0] == [1, 2, 3]
    assert ranking_store.merged(
        store(tmp_path, line("p:1", ["a", "b", "c"], [1, 2, 3]), line("p:1", ["a", "b", "c"], [2, 1, 3], "bob")),
        SAMPLES,
    )[0] == [1, 1, 2]


def test_the_last_line_of_a_person_counts(tmp_path: Path) -> None:
    file = store(tmp_path, line("p:2", ["d", "e"], [1, 2]), line("p:2", ["d", "e"], [2, 1]))
    assert ranking_store.merged(file, SAMPLES)[1] == [2, 1]


def test_a_ranking_of_other_answers_does_not_count(tmp_path: Path) -> None:
    file = store(tmp_path, line("p:2", ["d", "old"], [1, 2]), line("p:9", ["d", "e"], [1, 2]))
    assert ranking_store.merged(file, SAMPLES) == [None, None]
    assert ranking_store.merged(tmp_path / "not-yet.jsonl", SAMPLES) == [None, None]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("{", "Expecting property name"),
        (line("p:1", ["a", "b"], [1]), "2 responses, 1 ranks"),
        (line("p:1", ["a"], [0]), "greater than or equal to 1"),
        ({"id": "p:1", "responses": ["a"], "ranks": [1]}, "Field required"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, wrong: Any, why: str) -> None:
    file = store(tmp_path, line("p:2", ["d", "e"], [1, 2]), wrong)
    with pytest.raises(DataError, match=why) as caught:
        ranking_store.merged(file, SAMPLES)
    assert caught.value.where == f"{file}:2"


def test_a_text_may_hold_what_unicode_calls_the_end_of_a_line(tmp_path: Path) -> None:
    line = {"id": "p:1", "responses": ["one\u2028two", "three\x85"], "ranks": [1, 2], "annotator": "ann"}
    (tmp_path / "r1.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n\n", encoding="utf-8")
    (found,) = ranking_store.read(tmp_path / "r1.jsonl")
    assert found.responses == ["one\u2028two", "three\x85"]
    (tmp_path / "r1.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(DataError, match=r"r1\.jsonl:1: not a ranking: .*take it out"):
        list(ranking_store.read(tmp_path / "r1.jsonl"))
