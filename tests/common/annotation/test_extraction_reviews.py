"""What people's decisions make of extracted records: most count, edits keep their spans, what was
shown is meant.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common.annotation import extraction_reviews as reviews
from stages.common.annotation import feedback
from stages.common.annotation.extraction_reviews import Review
from stages.common.annotation.queue import FOR_EVERYBODY
from stages.common.extraction import schemas
from stages.common.extraction.extracted import Extracted
from stages.common.extraction.spans import Value
from stages.common.runtime.errors import DataError
from stages.common.text import content_hash

WANTED = schemas.load("question_answer")
PASSAGE = "Ada was born in London. Bob was born in Rome."


def record(number: int, answer: str = "London", says: bool = True, due: bool = True) -> Extracted:
    span = "born in London"
    values = [Value("question", "Where was Ada born?", "Ada was born", 0, 12, True)]
    values.append(Value("answer", answer, span, 8, 8 + len(span), says))
    plain = {"question": "Where was Ada born?", "answer": answer}
    return Extracted(f"lives.txt:{number}.x1", "lives.txt", f"lives.txt:{number}", PASSAGE, 0, plain, values, due)


def said(one: Extracted, who: str, decision: Any, edited: str | None = None) -> Review:
    return Review(id=one.id, shown=one.shown, decision=decision, edited=edited, annotator=who)


def edit(one: Extracted, answer: str, span: str) -> str:
    changed = json.loads(one.shown)
    changed["answer"] = {"span": span, "value": answer}
    return json.dumps(changed)


def test_most_decisions_count_and_where_there_are_as_many_it_is_put_aside() -> None:
    one = record(1)
    accept, reject = said(one, "ada", "accept"), said(one, "bob", "reject")
    assert reviews.agreed(one, [accept], WANTED).record == one
    refused = reviews.agreed(one, [reject], WANTED)
    assert refused.record is None and refused.fault and refused.fault.reason == "rejected"
    split = reviews.agreed(one, [accept, reject], WANTED)
    assert split.fault and split.fault.reason == "people_disagree"
    assert reviews.agreed(one, [accept, reject, said(one, "cy", "accept")], WANTED).record == one
    same = reviews.agreed(one, [accept, said(one, "bob", "edit", one.shown)], WANTED)
    assert same.record == one, "an edit that changes nothing accepts"


def test_an_edit_keeps_schema_and_spans_or_is_none() -> None:
    one = record(1)
    mended = reviews.agreed(one, [said(one, "ada", "edit", edit(one, "Rome", "born in Rome"))], WANTED).record
    assert mended and mended.record["answer"] == "Rome" and mended.id == one.id
    assert PASSAGE[mended.values[1].start : mended.values[1].end] == "born in Rome"
    for text in ("{", edit(one, "Oslo", "born in Oslo"), '{"answer": "Rome"}', "[]"):
        fault = reviews.edited(one, text, WANTED).fault
        assert fault and fault.reason == "edit_not_valid", text


def test_a_decision_is_about_what_was_shown_and_the_later_one_counts(tmp_path: Path) -> None:
    file, one, other = tmp_path / "reviews.jsonl", record(1), record(2)
    assert reviews.given(file, [one]) == {}
    for line in (said(one, "ada", "accept"), said(other, "ada", "accept"), said(one, "ada", "reject")):
        feedback.append(file, line)
    now = [one, record(2, "Rome")]
    assert {who: {id: it.decision for id, it in some.items()} for who, some in reviews.given(file, now).items()} == {
        "ada": {one.id: "reject"}
    }
    file.write_text(file.read_text() + '{"id": "x"}\n')
    with pytest.raises(DataError, match="not a decision"):
        reviews.given(file, now)
    with pytest.raises(ValueError, match="only an edit"):
        said(one, "ada", "accept", "text")


def test_everybody_sees_some_then_come_values_their_span_does_not_say() -> None:
    found = [record(number, says=number % 4 != 0, due=number != 7) for number in range(40)]
    order: list[str] = []
    given: dict[str, dict[str, Review]] = {"ada": {}}
    by_id = {one.id: one for one in found}
    while id := reviews.next_to_review(found, given, "ada", {found[3].id}):
        order.append(id)
        given["ada"][id] = said(by_id[id], "ada", "accept")
    assert len(order) == 39 and order[-1] == found[3].id, "what was skipped comes last, what is not due never"
    shared = [id for id in order[:-1] if content_hash.digest(id)[0] % FOR_EVERYBODY == 0]
    assert shared and order[: len(shared)] == shared
    rest = [all(value.is_in_span for value in by_id[id].values) for id in order[len(shared) : -1]]
    assert rest == sorted(rest)
    assert reviews.next_to_review(found, given, "bob", ()) == shared[0]


def test_agreement_is_the_share_of_the_same_outcome() -> None:
    found = [record(number) for number in range(4)]
    ada = {one.id: said(one, "ada", "accept") for one in found}
    bob = {one.id: said(one, "bob", "reject" if one.id == found[0].id else "accept") for one in found[:3]}
    (cell,) = reviews.agreement({"ada": ada, "bob": bob, "cy": {}}).values()
    assert (cell["value"], cell["records"]) == (2 / 3, 3) and cell["low"] < 2 / 3 < cell["high"]
    facts = reviews.counts({"ada": ada, "bob": bob})
    assert facts["decided"] == {"ada": {"accept": 4}, "bob": {"accept": 2, "reject": 1}}
