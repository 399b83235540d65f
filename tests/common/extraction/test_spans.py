"""No value without a span that the passage holds word for word; what becomes of records when some
have none.
"""

import json
from typing import Any

from stages.common.extraction import schemas, spans
from stages.common.extraction.spans import Fault, Found

PASSAGE = "Ada Byron was born in London in 1815.\nShe wrote of «engines» — 著作有八卷。"
WANTED = schemas.load(
    {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "born": {"type": "integer"},
                "words": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["name"],
        },
    }
)


def read(*proposed: Any, **named: Any) -> list[Found | Fault]:
    return list(spans.read(json.dumps({"records": proposed}), PASSAGE, WANTED, **named))


def beside(value: Any, span: str) -> dict[str, Any]:
    return {"span": span, "value": value}


def test_a_value_knows_where_it_comes_from() -> None:
    record = {
        "name": beside("Ada Byron", "Ada Byron was"),
        "born": beside(1815, "in 1815"),
        "words": [beside("八", "八卷")],
    }
    (found,) = read(record)
    assert isinstance(found, Found)
    assert found.record == {"name": "Ada Byron", "born": 1815, "words": ["八"]}
    assert [value.path for value in found.values] == ["name", "born", "words/0"]
    assert all(PASSAGE[value.start : value.end] == value.span and value.is_in_span for value in found.values)
    assert spans.from_json(spans.as_json(found.values)) == found.values
    assert read(spans.wrapped(found.record, found.values)) == [found]


def test_a_value_whose_span_is_not_there_is_put_aside_and_the_rest_stays() -> None:
    record = {
        "name": beside("Ada", "Ada Byron"),
        "born": beside(1816, "born in 1816"),
        "words": [beside("x", "no such words"), beside("engines", "«engines»")],
    }
    *faults, found = read(record)
    assert [(one.reason, one.detail) for one in faults if isinstance(one, Fault)] == [
        ("span_missing", "born: the document does not say 'born in 1816'"),
        ("span_missing", "words/0: the document does not say 'no such words'"),
    ]
    assert isinstance(found, Found) and found.record == {"name": "Ada", "words": ["engines"]}
    assert [value.path for value in found.values] == ["name", "words/0"], "paths are those of what is kept"


def test_a_span_is_there_word_for_word_or_not_at_all() -> None:
    for span in ("ada byron", "Ada  Byron", "Ada Byron was born in London in 1815. She", "<<engines>>"):
        first, *_ = read({"name": beside("Ada", span)})
        assert isinstance(first, Fault) and first.reason == "span_missing" and "name" in first.detail, span


def test_a_record_without_a_value_that_it_needs_is_put_aside_whole() -> None:
    one, whole = read({"name": beside("Eve", "Eve"), "born": beside(1815, "1815")})
    assert isinstance(one, Fault) and isinstance(whole, Fault)
    assert (one.reason, whole.reason) == ("span_missing", "span_missing") and whole.detail.startswith(
        "the whole record"
    )


def test_what_is_no_record_of_the_schema_says_so() -> None:
    born = {"born": beside(1815, "1815")}
    replies: list[Any] = [{"name": "Ada"}, {"name": beside(3, "1815")}, {"name": beside("Ada", "")}, born, [], "Ada"]
    for wrong in replies:
        (found,) = read(wrong)
        assert isinstance(found, Fault) and found.reason == "schema", "a value without a span is none"


def test_a_reply_that_is_no_json_says_whether_it_was_cut() -> None:
    for text in ('{"records": [{"name', "Sure! Here you are", '{"answer": []}', '{"records": 3}', "[1", '"\\ud800"'):
        assert [one.reason for one in spans.read(text, PASSAGE, WANTED) if isinstance(one, Fault)] == ["not_json"]
    (cut,) = spans.read('{"records": [{"na', PASSAGE, WANTED, cut=True)
    assert isinstance(cut, Fault) and cut.reason == "cut"
    (half,) = spans.read('{"records": [{"name": {"span": "\\ud800", "value": "x"}}]}', PASSAGE, WANTED)
    assert isinstance(half, Fault) and half.reason == "not_json"


def test_the_same_record_stands_once() -> None:
    same = {"name": beside("Ada", "Ada")}
    first, second = read(same, same)
    assert isinstance(first, Found) and isinstance(second, Fault) and second.reason == "repeated"


def test_whether_a_span_says_its_value_is_told() -> None:
    for value, span, says in (
        ("ada byron.", "Ada Byron", True),
        ("Rome", "London", False),
        (1815, "in 1815", True),
        (1816, "in 1815", False),
    ):
        field = "born" if isinstance(value, int) else "name"
        record = {"name": beside("Ada", "Ada")} | {field: beside(value, span)}
        (found,) = read(record)
        assert isinstance(found, Found)
        assert {one.path: one.is_in_span for one in found.values}[field] is says
    own = schemas.load("question_answer")
    text = json.dumps({"records": [{"question": beside("Who?", "Ada Byron was born"), "answer": beside("Ada", "Ada")}]})
    (found,) = spans.read(text, PASSAGE, own)
    assert isinstance(found, Found) and all(one.is_in_span for one in found.values), "a question is worded anew"
