"""What records share: found in whichever part it lies, and the same for any number of parts."""

from pathlib import Path

import pytest

from stages.common.core.records import Record, Shape, message
from stages.common.validate import cross_record_checks

APART: dict[Shape, list[str]] = {"prompts": ["conversations"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt:3", ("a.txt:3", 1)),
        ("a.txt:3#2", ("a.txt:3", 2)),
        ("a.txt:3#12", ("a.txt:3", 12)),
        ("a#2.txt:3", ("a#2.txt:3", 1)),
        ("a.txt:3#1", ("a.txt:3#1", 1)),
        ("a.txt#2", ("a.txt#2", 1)),
    ],
)
def test_a_copy_knows_its_original(name: str, expected: tuple[str, int]) -> None:
    assert cross_record_checks.copy_of(name) == expected


def talk(name: str, *texts: str) -> Record:
    turns = [message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]
    return {"id": name, "messages": turns, "tools": None}


def document(name: str, text: str) -> Record:
    return {"id": name, "text": text}


def question_of(record: Record) -> bytes | None:
    return cross_record_checks.question("conversations", record)


def test_the_question_is_all_before_the_last_answer() -> None:
    one = question_of(talk("a:1", "Hi", "Hello.", "Well?", "Yes."))
    assert one == question_of(talk("a:2", " hi", "hello.", "WELL?", "No."))
    assert one != question_of(talk("a:3", "Hi", "Good day.", "Well?", "Yes."))
    assert one != question_of(talk("a:1", "Hi", "Hello.", "Well?", "Yes.") | {"tools": "[]"})
    assert question_of(talk("a:4", "Hi", "Hello.", "Well?")) is None


FILES: list[tuple[Shape, str, list[Record]]] = [
    ("documents", "train", [document(f"d:{line}", f"Text {line // 2 if line < 4 else line}.") for line in range(40)]),
    ("documents", "train", [document("d:6#2", "Text 6."), document("d:7#2", "Text 8."), document("d:8", "Again.")]),
    (
        "documents",
        "validation",
        [document("d:50", "Text 9."), document("d:9#2", "Text 9."), document("e:1#2", "New.")],
    ),
    ("conversations", "train", [talk("c:1", "A?", "One."), talk("c:2", "A?", "Two."), talk("c:3", "B?", "Three.")]),
    ("prompts", "train", [talk("p:1", "a?"), talk("p:2", "C?"), talk("p:3", "b?")]),
    ("questions", "whole", []),
]
WRONG = {
    ("same_content", "d:1", "d:0"),
    ("same_content", "d:3", "d:2"),
    ("same_id", "d:8", "train"),
    ("strayed_copy", "d:7#2", "another content"),
    ("strayed_copy", "d:9#2", "another split"),
    ("strayed_copy", "e:1#2", "no original"),
    ("other_split", "d:50", "d:9"),
    ("other_split", "d:9#2", "d:9"),
    ("other_answer", "c:2", "c:1"),
    ("other_stage", "p:1", "c:1"),
    ("other_stage", "p:3", "c:3"),
}


@pytest.mark.parametrize("parts", [1, 2, 7, 100])
def test_what_is_shared_is_found_in_any_number_of_parts(tmp_path: Path, parts: int) -> None:
    for number, (shape, split, rows) in enumerate(FILES):
        cross_record_checks.write(
            tmp_path, number, parts, [cross_record_checks.keys(shape, split, row) for row in rows]
        )
    found, seen = set(), 0
    for part in range(parts):
        ids = cross_record_checks.facts_of_ids(cross_record_checks.read(tmp_path, "ids", part))
        contents = cross_record_checks.facts_of_contents(cross_record_checks.read(tmp_path, "contents", part), APART)
        seen += len(ids) + len(contents)
        for frame in (ids, contents):
            for column in frame.columns[1:]:
                rows = frame[frame[column].notna()]
                found |= {(column, *row) for row in zip(rows["id"], rows[column], strict=True)}
    assert seen == 2 * sum(len(rows) for *_, rows in FILES)
    assert found == WRONG


def test_shapes_that_need_not_stay_apart_may_share_prompts(tmp_path: Path) -> None:
    for number, (shape, split, rows) in enumerate(FILES):
        cross_record_checks.write(tmp_path, number, 1, [cross_record_checks.keys(shape, split, row) for row in rows])
    assert (
        not cross_record_checks.facts_of_contents(cross_record_checks.read(tmp_path, "contents", 0), {})["other_stage"]
        .notna()
        .any()
    )


def test_ids_are_shown_as_html_may_hold_them(tmp_path: Path) -> None:
    rows = [cross_record_checks.keys("documents", "train", document(f"<b>{line}:1", "Same.")) for line in range(2)]
    cross_record_checks.write(tmp_path, 0, 1, rows)
    shown = cross_record_checks.facts_of_contents(cross_record_checks.read(tmp_path, "contents", 0), {})
    assert shown[["id", "same_content"]].to_numpy().tolist() == [
        ["&lt;b&gt;0:1", None],
        ["&lt;b&gt;1:1", "&lt;b&gt;0:1"],
    ]


def test_parts_grow_with_the_data() -> None:
    assert [cross_record_checks.parts(rows) for rows in (0, 49_999, 50_000, 10_000_000)] == [1, 1, 2, 201]
