"""Every kind of word becomes the record it says, once, in the order it was said; what teaches
nothing is counted.
"""

from typing import Any

import pytest
from pydantic import ValidationError

from stages.common.annotation import feedback_export
from stages.common.annotation.feedback import Choice, Demonstration, Edit, Line, Opinion, Ordered, Side, Vote
from stages.common.annotation.feedback_export import Exported

FACTS: Any = {"model": "lathe", "version": "3", "weights_sha256": "f" * 64}


def asked(text: str = "Where?") -> Any:
    return [{"role": "user", "content": text}]


def opinion(response: str, liked: bool | None, who: str = "ann", text: str = "Where?") -> Opinion:
    return Opinion(messages=asked(text), response=response, liked=liked, annotator=who, **FACTS)


def edit(response: str, better: str, who: str = "ann") -> Edit:
    return Edit(messages=asked(), response=response, better=better, annotator=who, **FACTS)


def ranking(responses: list[str], ranks: list[int], who: str = "ann") -> Ordered:
    return Ordered(messages=asked(), responses=responses, ranks=ranks, annotator=who, **FACTS)


def vote(
    choice: Choice, left: list[str], right: list[str], conversation: str = "c1", who: str = "ann", **more: Any
) -> Vote:
    messages = asked() + [one for at in range(len(left) - 1) for one in asked(f"And {at}?")]
    sides = {"left": Side(answers=left, **FACTS), "right": Side(answers=right, **FACTS), "challenger": "left"}
    fields = {"messages": messages, "conversation": conversation, "annotator": who, "vote": choice} | sides | more
    return Vote.model_validate(fields)


def done(*lines: Line) -> Exported:
    return feedback_export.export(lines)


def ordered(exported: Exported) -> list[tuple[list[str], list[int], str]]:
    return [(one["responses"], one["ranks"], one["annotator"]) for one in exported.comparisons]


def test_a_ranking_is_a_comparison_with_ranks_from_one() -> None:
    found = done(ranking(["a", "b", "c", "d"], [4, 2, 2, 3]))
    assert ordered(found) == [(["a", "b", "c", "d"], [3, 1, 1, 2], "ann")]
    assert found.comparisons[0]["prompt"] == asked()
    assert found.taken == {"ranking": 1} and not +found.left_out


def test_an_edit_beats_the_answer_and_is_a_conversation() -> None:
    found = done(edit("a", "b"))
    assert ordered(found) == [(["b", "a"], [1, 2], "ann")]
    assert found.conversations == [{"messages": [*asked(), {"role": "assistant", "content": "b"}]}]


def test_a_demonstration_is_a_conversation() -> None:
    found = done(Demonstration(messages=asked(), response="b", annotator="ann"))
    assert found.conversations == [{"messages": [*asked(), {"role": "assistant", "content": "b"}]}]
    assert not found.comparisons


def labels(exported: Exported) -> list[tuple[str, str, bool]]:
    turns = [(*(turn["content"] for turn in one["messages"]), one["label"]) for one in exported.labelled]
    return [(question, answer, label) for question, answer, label in turns]


def test_likes_are_a_comparison_only_with_another_answer_to_the_same_conversation() -> None:
    found = done(opinion("a", True), opinion("b", False), opinion("c", True, text="Why?"))
    assert ordered(found) == [(["a", "b"], [1, 2], "page")]
    assert labels(found) == [("Why?", "c", True)]
    assert not +found.left_out and found.taken == {"opinion": 3}


def test_answers_that_are_liked_alike_are_labelled_each_by_itself() -> None:
    alike = done(opinion("a", True), opinion("b", True), opinion("c", False, text="Why?"))
    assert not alike.comparisons and not alike.conversations
    assert labels(alike) == [("Where?", "a", True), ("Where?", "b", True), ("Why?", "c", False)]
    most = done(opinion("a", False), opinion("A", False, "bob"), opinion("a", True, "cid"))
    assert labels(most) == [("Where?", "a", False)] and most.taken == {"opinion": 3}
    even = done(opinion("a", True), opinion("a", False, "bob"))
    assert not even.labelled and +even.left_out == {feedback_export.EVEN: 2}


def test_visitors_are_counted_once_an_answer() -> None:
    votes = [opinion("a", True, who) for who in ("ann", "bob")]
    votes += [opinion("B", True, "ann"), opinion("b ", False, "bob"), opinion("c", True, "bob")]
    again = [opinion("a", True, "bob"), opinion("c", True, "bob")]
    assert ordered(done(*votes, *again)) == [(["a", "B", "c"], [1, 3, 2], "page")]
    changed = done(opinion("a", True), opinion("b", True), opinion("b", False))
    assert ordered(changed) == [(["a", "b"], [1, 2], "page")] and +changed.left_out == {feedback_export.REPLACED: 1}


def test_a_like_can_be_taken_back() -> None:
    found = done(opinion("a", True), opinion("b", False), opinion("b", None))
    assert not found.comparisons and labels(found) == [("Where?", "a", True)]
    assert +found.left_out == {feedback_export.REPLACED: 1, feedback_export.TAKEN_BACK: 1}


def test_a_later_word_of_the_same_person_takes_the_place_of_the_earlier() -> None:
    found = done(
        ranking(["a", "b"], [1, 2]), edit("a", "c"), ranking(["b", "a"], [1, 2]), ranking(["a", "b"], [1, 2], "bob")
    )
    assert ordered(found) == [(["b", "a"], [1, 2], "ann"), (["c", "a"], [1, 2], "ann"), (["a", "b"], [1, 2], "bob")]
    assert +found.left_out == {feedback_export.REPLACED: 1}


def test_what_prefers_nothing_is_left_out_with_its_reason() -> None:
    unasked = Ordered(messages=[], responses=["a", "b"], ranks=[1, 2], annotator="ann", **FACTS)
    found = done(
        *(ranking(["a", "b"], [1, 1]), ranking(["a", "A"], [1, 2], "bob"), edit("a", "A "), edit("b", " "), unasked),
        Opinion(messages=[], response="a", liked=True, annotator="ann", **FACTS),
        Demonstration(messages=asked(), response=" ", annotator="ann"),
    )
    assert not found.comparisons and not found.conversations and not found.labelled
    assert +found.left_out == {feedback_export.TIED: 2, feedback_export.UNCHANGED: 2, feedback_export.EMPTY: 3}


def test_earlier_records_keep_their_lines_when_the_store_grows() -> None:
    lines: list[Line] = [ranking(["a", "b"], [1, 2]), opinion("a", True), opinion("b", False), edit("a", "c")]
    first = done(*lines)
    assert first == done(*lines)
    grown = done(*lines, ranking(["d", "e"], [1, 2]), edit("d", "f"))
    assert grown.comparisons[: len(first.comparisons)] == first.comparisons
    assert grown.conversations[: len(first.conversations)] == first.conversations


def test_a_vote_for_one_is_a_comparison_whichever_side_it_was_on() -> None:
    found = done(
        vote("left", ["a"], ["b"]),
        vote("right", ["a"], ["b"], "c2"),
        vote("right", ["a", "c"], ["A ", "d"], "c3", "bob"),
    )
    assert ordered(found) == [
        (["a", "b"], [1, 2], "ann"),
        (["a", "b"], [2, 1], "ann"),
        (["c", "d"], [2, 1], "bob"),
    ]
    assert [one["content"] for one in found.comparisons[2]["prompt"]] == ["Where?", "a", "And 0?"]
    assert found.taken == {"vote": 3} and not +found.left_out and not found.no_pair


def test_a_vote_for_neither_makes_no_pair_and_holds_of_each_answer() -> None:
    found = done(
        vote("tie", ["a"], ["b"]), vote("both bad", ["c"], ["d"], "c2"), vote("tie", ["e"], ["E"], "c3"),
        vote("both bad", ["a", "f"], ["b", "f"], "c4"),
    )  # fmt: skip
    assert not found.comparisons and not found.conversations
    assert (
        labels_of_last(found)
        == [("a", True), ("b", True), ("c", False), ("d", False), ("e", True)] + [("f", False)] * 2
    ), "the same text, after other answers"
    assert found.taken == {"vote": 4} and not +found.left_out
    assert found.no_pair == {feedback_export.NO_PAIR["tie"]: 2, feedback_export.NO_PAIR["both bad"]: 2}


def labels_of_last(exported: Exported) -> list[tuple[str, bool]]:
    return [(one["messages"][-1]["content"], one["label"]) for one in exported.labelled]


def test_votes_that_teach_no_pair_are_left_out_with_their_reasons_and_the_counts_add_up() -> None:
    lines: list[Line] = [
        vote("left", ["a", "c"], ["b", "d"]),
        vote("left", ["a"], [" A"], "c2"),
        vote("left", ["a"], [" "], "c3"),
        vote("tie", [], [], "c4", messages=[]),
        vote("left", ["a"], ["b"], "c5"),
        vote("right", ["a"], ["b"], "c5"),
        vote("right", ["a"], ["b"], "c5", "bob"),
        vote("tie", ["a"], ["b"], "c6"),
    ]
    found = done(*lines)
    assert +found.left_out == {
        feedback_export.APART: 1,
        feedback_export.EQUAL: 1,
        feedback_export.EMPTY: 2,
        feedback_export.REPLACED: 1,
    }
    assert found.taken == {"vote": 3} and found.no_pair.total() == 1
    assert found.taken.total() + found.left_out.total() == len(lines)
    assert len(found.comparisons) == 2


def test_a_vote_has_an_answer_of_each_to_every_message() -> None:
    with pytest.raises(ValidationError, match="1 messages, 1 and 2 answers"):
        vote("left", ["a"], ["b", "c"])
    with pytest.raises(ValidationError, match="vote"):
        vote("middle", ["a"], ["b"])  # type: ignore[arg-type]  # what a hand may write
