"""A row's format by its keys, whatever else stands beside them."""

import pytest

from stages.common.core.records import SCHEMAS, Record, message
from stages.common.ingest.layout_table import COLUMNS, LAYOUTS
from stages.common.ingest.layouts.fields import Malformed
from stages.common.ingest.layouts.recognise import recognise
from tests.support.parse import parse


def test_a_null_field_does_not_count_where_another_says_what_the_row_is() -> None:
    empty: Record = dict.fromkeys(COLUMNS)
    assert parse(empty | {"text": "One."}) == ("text", "documents", {"text": "One."})
    assert recognise(empty | {"messages": [{"role": "user", "content": "Hi"}]}) in ("messages", "prompt")
    assert recognise(empty | {"instruction": "a", "output": "b"}) == "alpaca"


def test_a_lost_answer_does_not_turn_a_row_into_something_else() -> None:
    rows: list[Record] = [{"prompt": "a", "response": None}, {"text": "a", "response": None}]
    for row in [*rows, {"prompt": "a", "chosen": "b", "rejected": None}]:
        with pytest.raises(Malformed, match="null"):
            parse(row)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"q": "a"},
        {"text": None},
        {"messages": None},
        {"prompt": None, "response": "a"},
        {"question": "a", "choices": ["b", "c"]},
        {"responses": ["a"], "ranks": [1]},
        {"content": "a"},
    ],
)
def test_other_keys_are_no_known_format(row: Record) -> None:
    assert recognise(row) is None


def test_every_shape_can_be_read_from_some_format_and_every_column_is_a_string() -> None:
    assert {layout.shape for layout in LAYOUTS.values()} == set(SCHEMAS) - {"labelled"}
    assert all(isinstance(column, str) for column in COLUMNS)


def test_records_of_ours_come_back_as_they_are() -> None:
    turns = [message("user", "Hi"), message("assistant", "Hello.", "Greet.", [{"name": "a", "arguments": "{}"}])]
    rows: dict[str, Record] = {
        "documents": {"text": "One."},
        "conversations": {"messages": turns, "tools": '[{"name": "a"}]'},
        "comparisons": {
            "prompt": turns[:1],
            "responses": ["a", "b"],
            "ranks": [1, 2],
            "annotator": "x",
            "categories": ["y"],
            "tools": None,
        },
        "prompts": {"messages": turns[:1], "reference": None, "category": None},
        "questions": {"messages": turns[:1], "reference": "Hello.", "group": "iid", "category": None},
    }
    for shape, row in rows.items():
        assert parse({"id": "a:1", "source": "a"} | row)[1:] == (shape, row)
