"""Right or wrong by group of questions: rules, and a judge endpoint that is really asked."""

import logging
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import records
from stages.common.evaluation.grading import Grading
from stages.common.evaluation.metrics import Answer
from stages.common.ranking.llm_judge import JudgeParams
from stages.common.runtime.errors import DataError, ParamsError
from tests.support import judge_server


def answer(text: str, reference: str | None, group: str = "iid") -> Answer:
    return {"id": "q:1", "question": "How much?", "answer": text, "reference": reference, "group": group}


def question(reference: str | None, group: str) -> records.Record:
    turns = [records.message("user", "How much?")]
    return {"id": "q:1", "source": "q", "messages": turns, "reference": reference, "group": group, "category": None}


def graded(grading: Grading, *answers: Answer, prompt: str = "chat") -> list[bool | None]:
    grading.grade(answers, prompt)
    return [row["correct"] for row in answers]


def test_each_group_has_its_grader_and_the_others_are_compared_exactly() -> None:
    grading = Grading({"math": "boxed", "sums": "number", "quiz": "choice"})
    said = "The answer is \\boxed{42}."
    rows = [answer(said, "42", group) for group in ("math", "sums", "iid")]
    assert graded(grading, *rows, answer("(B)", "B", "quiz"), answer("42.", "42")) == [True, True, False, True, True]
    assert graded(Grading({"*": "contains"}), answer("It is Paris.", "Paris")) == [True]


def test_thoughts_do_not_count_and_who_only_thinks_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    texts = ["<think>Not 41.</think>\n42", "41. No.</think>42", "<think>42", "<think>42</think>"]
    with caplog.at_level(logging.WARNING, logger="lathe"):
        assert graded(Grading(), *(answer(text, "42") for text in texts)) == [True, True, False, False]
    assert "2 of 4 answers end within their thoughts" in caplog.text
    assert "evaluate.max_new_tokens" in caplog.text


def test_a_plain_answer_is_its_first_line_and_none_has_no_reference() -> None:
    rows = answer("42\nQ: How much?", "42"), answer("42", None)
    assert graded(Grading(), *rows, prompt="plain") == [True, None]


def test_a_group_that_no_question_has_is_refused_by_name() -> None:
    with pytest.raises(ParamsError, match=r"evaluate\.grader\.mth.*did you mean 'math'"):
        Grading({"mth": "boxed"}).check([question("42", "math")])
    Grading({"math": "boxed", "*": "exact"}).check([question("42", "math"), question(None, "prompts")])


def test_a_reference_that_no_answer_can_meet_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(DataError, match=r"q:1, 'Paris', has no number.*evaluate\.grader\.math"):
        Grading({"math": "number"}).check([question("Paris", "math")])


def test_the_grader_judge_needs_a_model() -> None:
    with pytest.raises(ParamsError, match=r"evaluate\.judge\.model"):
        Grading({"math": "judge"}).check([question("42", "math")])


def test_a_judge_decides_on_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def reply(messages: list[dict[str, Any]]) -> str:
        asked = messages[-1]["content"]
        assert "secret" not in asked
        wanted, said = asked.split("Reference answer:\n")[1].split("\n\nAnswer:\n")
        return "CORRECT" if wanted == "forty-two" and said == "42" else "INCORRECT"

    with judge_server.grading(reply) as server:
        grading = Grading({"*": "judge"}, JudgeParams(url=server.url, model="judge-1"))
        rows = [answer("<think>secret</think>42", "forty-two"), answer("41", "forty-two")]
        assert graded(grading, *rows, answer("<think>secret", "forty-two"), answer("42", None)) == [
            True,
            False,
            False,
            None,
        ]
        assert len(server.seen) == 2
