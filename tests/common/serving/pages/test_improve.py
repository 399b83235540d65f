"""What is said below the chat is kept with who had answered, and only of answers that were given
here.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stages.common.annotation import feedback
from stages.common.annotation.feedback import Edit, Opinion, Ordered
from stages.common.core.records import Record, message
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import DataError
from stages.common.serving.engine.champions import Question
from stages.common.serving.pages import improve
from stages.common.serving.pages.answered import Answered
from stages.common.serving.pages.improve import Shown

FACTS = {"model": "lathe", "version": "7", "weights_sha256": "f" * 64}
TURNS: list[Record] = [
    message("user", "Where?"),
    message("assistant", "  town\n3"),
    message("user", "And then?"),
    message("assistant", "never said here"),
]


@pytest.fixture
def answered() -> Answered:
    known = Answered()
    known.note([message("system", "Be kind."), message("user", "Where?")], "town 3", FACTS)
    return known


def test_a_like_is_kept_with_who_said_it_and_a_foreign_one_is_not(answered: Answered, tmp_path: Path) -> None:
    store = tmp_path / "page.jsonl"
    given: list[tuple[Any, Any]] = [
        *((1, "Like"), (1, False), (1, ""), (3, True), (0, True), (9, True), (-1, True), ("1", True), ([0, 1], True))
    ]
    known = [improve.opinion(store, answered, TURNS, index, liked, "visit-1") for index, liked in given]
    assert known == [True] * 3 + [False] * 6
    kept = [one for one in feedback.read(store) if isinstance(one, Opinion)]
    assert [(one.response, one.liked, one.version) for one in kept] == [
        ("town 3", True, "7"),
        ("town 3", False, "7"),
        ("town 3", None, "7"),
    ]
    assert kept[0].messages == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where?"}]


def test_an_answer_to_another_question_was_not_given_here(answered: Answered) -> None:
    forged = [message("user", "How to do harm?"), message("assistant", "town 3")]
    assert answered.find(forged, 1) is None
    slipped_in = [message("system", "Be rude."), *TURNS[:2]]
    found = answered.find(slipped_in, 2)
    assert found is not None and found.messages[0]["content"] == "Be kind."


def test_an_edit_is_kept_with_the_answer_it_betters(answered: Answered, tmp_path: Path) -> None:
    store = tmp_path / "page.jsonl"
    improve.edit(store, answered, TURNS[:2], "  town 3, in the north. ", "visit-1")
    (line,) = feedback.read(store)
    assert isinstance(line, Edit)
    assert (line.response, line.better, line.annotator) == ("town 3", "town 3, in the north.", "visit-1")
    for better in ("", "  ", "TOWN 3", "a" * 1_000_000):
        with pytest.raises(DataError, match="that is no other answer"):
            improve.edit(store, answered, TURNS[:2], better, "visit-1")
    for turns in (TURNS, TURNS[:1], []):
        with pytest.raises(DataError, match="no answer that was given here"):
            improve.edit(store, answered, turns, "better", "visit-1")
    assert len(list(feedback.read(store))) == 1


def test_ranks_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    store, shown = tmp_path / "page.jsonl", Shown([{"role": "user", "content": "Where?"}], ["a", "b", "c"], FACTS)
    for wrong in ([1, 2, None, None], [1, 2, 4], [0, 1, 1], [1, True, 2], [1, 2, "1"], []):
        with pytest.raises(DataError, match="every answer needs a rank from 1 to 3"):
            improve.ranks(store, shown, wrong, "visit-1")
    with pytest.raises(DataError, match="there is nothing to rank"):
        improve.ranks(store, None, [1, 2], "visit-1")
    improve.ranks(store, shown, [2, 1, 2, None], "visit-1")
    (line,) = feedback.read(store)
    assert isinstance(line, Ordered)
    assert (line.responses, line.ranks) == (["a", "b", "c"], [2, 1, 2])


class Scripted:
    """An observer whose answers are known: one after the other, each in two pieces."""

    def __init__(self, texts: list[str]) -> None:
        self.left = iter(texts)

    async def ask(self, question: Question, via: str) -> tuple[Any, Any]:
        text = next(self.left)

        async def pieces() -> AsyncIterator[Any]:
            for part in (text[:2], text[2:]):
                yield SimpleNamespace(text=part)

        return SimpleNamespace(champion=SimpleNamespace(facts=lambda: FACTS)), pieces()


def asked(*texts: str) -> Shown:
    question = Question(TURNS[:1], 8, Sampling(temperature=1.0))
    return asyncio.run(improve.answers(cast(Any, Scripted(list(texts))), question))


def test_answers_to_rank_are_different_and_none_is_empty() -> None:
    assert asked("town 3", "", "TOWN 3", "town 4").responses == ["TOWN 3", "town 4"]
    for texts in (("", " \n", "town 3", "town 3"), ("a", "a", "a", "a"), ("", "", "", "")):
        with pytest.raises(DataError, match="all answers are the same, or empty"):
            asked(*texts)
