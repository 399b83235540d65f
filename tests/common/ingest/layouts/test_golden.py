"""Every layout is read whole: golden rows of each, the table in docs/data.md, and rows that a key
makes into something else.
"""

import json
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stages.common.core.records import Record
from stages.common.ingest.files.rows import Row
from stages.common.ingest.layout_table import KNOWN, LAYOUTS, nearest
from stages.common.ingest.layouts import comparisons
from stages.common.ingest.parsing import Kept, Refused, parse_row, parts
from stages.common.ingest.reading import with_dialogues


class Golden(NamedTuple):
    """A layout, rows of it that stand together, their records by shape without what is null, and
    the keys that went nowhere.
    """

    layout: str
    rows: list[Record]
    records: dict[str, list[Record]]
    unused: list[str] = []


LINES = Path(__file__).with_name("golden.jsonl").read_text(encoding="utf-8").splitlines()
GOLDEN = [Golden(**json.loads(line)) for line in LINES]
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
DOCS = Path(__file__).parents[4] / "docs/data.md"


def outcomes(*rows: Record) -> list[Kept | Refused]:
    raw = [Row(line, json.dumps(row, ensure_ascii=False).encode()) for line, row in enumerate(rows, 1)]
    return list(with_dialogues(parse_row(row) for row in raw))


def refusal(row: Record) -> tuple[str, str]:
    (outcome,) = outcomes(row)
    assert isinstance(outcome, Refused), outcome
    return outcome.reason, outcome.detail


def pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: pruned(item) for key, item in value.items() if item is not None}
    return [pruned(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"{golden.layout}: {str(golden.rows[0])[:60]}")
def test_a_row_of_every_layout_is_read_whole(golden: Golden) -> None:
    (found,) = outcomes(*golden.rows)
    assert isinstance(found, Kept), found
    records: dict[str, list[Any]] = {}
    for shape, record in found.records:
        records.setdefault(shape, []).append(pruned(record))
    assert (found.format, records, list(found.unused)) == (golden.layout, golden.records, golden.unused)


def test_every_layout_has_a_golden_row_that_has_the_keys_of_the_table() -> None:
    assert {golden.layout for golden in GOLDEN} == set(LAYOUTS)
    for golden in GOLDEN:
        given = {name for key in golden.rows[0] for name in (key, key.lower())}
        lacking = [group for group in LAYOUTS[golden.layout].needs if given.isdisjoint(group)]
        assert lacking == [], golden


def docs_line(name: str) -> str:
    layout = LAYOUTS[name]
    keys = " and ".join(" / ".join(f"`{key}`" for key in group) for group in layout.needs)
    return f"| {name} | {keys} | {layout.shape} | {layout.says} |"


def test_the_docs_have_the_table_of_layouts() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = lines.index("| layout | keys it needs | becomes | seen in |") + 2
    assert lines[start : start + len(LAYOUTS)] == [docs_line(name) for name in LAYOUTS]
    assert not lines[start + len(LAYOUTS)].startswith("|")


ANSWERED = {"instruction": "Hi", "output": "Hello."}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ANSWERED | {"images": ["a.png"]}, "refers to images"),
        ({"messages": TURNS, "audios": ["a.wav"]}, "refers to audio"),
        (
            {"messages": [TURNS[0] | {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, TURNS[1]]},
            "refers to images",
        ),
        ({"messages": [TURNS[0] | {"content": [{"type": "input_audio"}]}, TURNS[1]]}, "refers to audio"),
        (ANSWERED | {"weight": 0}, "not to be learned"),
        (ANSWERED | {"train": False}, "not to be learned"),
        (ANSWERED | {"loss_weight": "0"}, "not to be learned"),
        ({"messages": [TURNS[0], TURNS[1] | {"weight": 0}]}, "not to be learned"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "train": False}]},
            "not to be learned",
        ),
        (ANSWERED | {"rejected_output": "Go."}, "another answer beside it"),
        ({"messages": TURNS, "response_0": "Go."}, "another answer beside it"),
        ({"question": "Hi", "answer": "Hello.", "answer_b": "Go."}, "another answer beside it"),
        ({"messages": TURNS[:1], "label": False}, "bad label"),
        ({"prompt": "Hi", "response_0": "Go.", "response_1": "Hello."}, "another answer beside it"),
        ({"prompt": "Hi", "answers": ["Go."]}, "unknown format"),
        ({"prompt": "Hi", "label": True}, "unknown format"),
        ({"messages": TURNS[:1], "category": "x", "solution": "Hello."}, "unknown format"),
        ({"instruction": "Hi", "output": ["Hello.", "Go."]}, "bad output"),
        ({"prompt": "Hi", "response_0": "a", "response_1": "b", "better_response_id": 2}, "bad better_response_id"),
        ({"history": "Hi", "human_ref_A": "a", "human_ref_B": "b", "labels": 2}, "bad labels"),
        ({"prompt": "Hi", "responses": [{"text": "a", "score": 1}]}, "bad responses"),
        ({"prompt": "Hi", "answers": [{"answer": "a"}, {"answer": "b"}]}, "bad ranks"),
        ({"question": "Which?", "A": "one", "B": "two", "answer": "E"}, "bad answer"),
        ({"question": "Which?", "A": "one", "B": "two", "answer": ""}, "bad answer"),
        ({"prompt": {"text": "Hi", "role": "prompter", "replies": []}}, "no answer"),
        ({"messages": [{"user": "Hi"}]}, "bad role"),
    ],
)
def test_a_key_that_changes_what_a_row_means_is_not_passed_over(row: Record, reason: str) -> None:
    assert refusal(row)[0] == reason


def test_a_refusal_says_what_is_missing() -> None:
    assert refusal({"conversations": [{"who": "x", "text": "Hi"}]})[1] == "turn 1: no role or from; keys: who, text"
    assert "null" in refusal({"messages": [TURNS[0], {"role": "assistant", "content": None, "tool_calls": []}]})[1]
    assert refusal({"prompt": "Hi", "solution": "x"}) == ("unknown format", "a prompt beside unknown keys: solution")
    assert "nearest: rejected answer" in refusal({"rejected_response": "a", "query": "Hi"})[1]


def test_an_unknown_row_comes_nearest_to_the_layout_that_lacks_least() -> None:
    assert nearest({"post_id": 1, "history": "a", "human_ref_A": "b", "human_ref_B": "c"}) == ("shp", "labels")
    assert nearest({"quellwort": 1}) == ("", "")


@pytest.mark.parametrize(
    "row",
    [
        {"chosen_messages": [1, 2], "rejected_messages": [[3], [4]]},
        {"n": 5, "x": [1]},
        {"a": [], "b": []},
        {"a": [1, 2], "b": [3]},
        {"0": {"text": "a"}, "1": 2},
        {},
    ],
)
def test_a_refused_row_that_holds_no_rows_is_one(row: Record) -> None:
    assert parts(Row(1, json.dumps(row).encode())) == []


def test_messages_of_a_tree_that_nobody_chose_are_refused() -> None:
    flat = {"message_tree_id": "a", "role": "assistant", "rank": None}
    rows = [
        flat | {"message_id": "a", "parent_id": None, "text": "Hi", "role": "prompter"},
        flat | {"message_id": "b", "parent_id": "a", "text": "Hello."},
        flat | {"message_id": "c", "parent_id": "a", "text": "Go."},
    ]
    found, left = outcomes(*rows)
    assert isinstance(found, Kept) and (found.rows, [shape for shape, _ in found.records]) == (2, ["conversations"])
    assert isinstance(left, Refused) and (left.row.line, left.reason) == (3, "no answer")
    orphan = outcomes(flat | {"message_id": "b", "parent_id": "gone", "text": "Hello."})
    assert [one.reason for one in orphan if isinstance(one, Refused)] == ["bad tree"]


ODD: list[Any] = [None, 1, "a", [], {}, [1], ["a"], [{}], [{"text": "a"}], {"text": "a", "replies": []}, True, 0.5]


def test_known_keys_with_odd_values_are_kept_or_refused() -> None:
    chance = random.Random(5)
    keys = sorted({*KNOWN, *comparisons.REJECTED, "non_preferred_output", "preferred_output"})
    rows = [{key: value} for key in keys for value in ODD]
    rows += [{key: chance.choice(ODD) for key in chance.sample(keys, 4)} for _ in range(3_000)]
    rows += [{chance.choice(group): chance.choice(ODD) for group in one.needs} for one in [*LAYOUTS.values()] * 30]
    for row in rows:
        raw = Row(1, json.dumps(row).encode())
        outcome = parse_row(raw)
        assert isinstance(outcome, Kept) or isinstance(parts(raw), list)


@pytest.mark.parametrize(
    "text", ["[INST]" * 9_999, "[INST] a [/INST]" + "[INST] " * 9_999, "### Human: a" + "\n " * 9_999]
)
def test_a_hostile_text_takes_no_longer_than_another(text: str) -> None:
    started = time.process_time()
    parse_row(Row(1, json.dumps({"text": text}).encode()))
    assert time.process_time() - started < 2
