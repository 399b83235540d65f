"""Win rates and forgetting against numbers worked by hand."""

import math
from pathlib import Path
from typing import Any

import pytest

from stages.common.evaluation import compare
from stages.common.evaluation.paired_bootstrap import Change
from stages.common.evaluation.results import Evaluated
from stages.common.ranking.llm_judge import Judge, JudgeParams
from tests.support import judge_server
from tests.support.evaluations import evaluated as whole


def evaluated(answers: dict[str, dict[str, Any]], losses: list[tuple[float, int]] | None = None) -> Evaluated:
    plain = {
        "group": "iid",
        "category": None,
        "question": "Who?",
        "reference": "Me.",
        "answer": "You.",
        "correct": False,
    }
    rows = {name: {"id": name} | plain | row for name, row in answers.items()}
    return whole("one", rows, {"documents": losses or []})


def test_a_judge_that_prefers_whatever_comes_first_gives_ties() -> None:
    assert compare.outcome(lambda *_: 1.0, {}, {}) == 0.5
    assert compare.outcome(lambda one, other: one["x"] - other["x"], {"x": 2}, {"x": 1}) == 1.0
    assert compare.outcome(lambda one, other: one["x"] - other["x"], {"x": 1}, {"x": 2}) == 0.0
    assert compare.outcome(lambda *_: 0.0, {}, {}) == 0.5


def test_a_tie_is_half_a_win() -> None:
    found = compare.wins([1.0, 1.0, 0.5, 0.0])
    assert (found.rate, found.wins, found.ties, found.losses) == (0.625, 2, 1, 1)
    assert found.low < 0.625 < found.high
    assert compare.wins([0.5] * 9) == compare.Wins(0.5, 0.5, 0.5, 0, 9, 0)


def test_right_beats_ignorance_which_beats_wrong() -> None:
    ours = evaluated({"a": {"answer": "Me."}, "b": {}, "c": {}, "d": {}})
    theirs = evaluated({"a": {"answer": "I don't know."}, "b": {"answer": "I don't know."}, "c": {"answer": "They."}})
    found = compare.win_rates(compare.compared(ours, theirs))
    assert (found["rules"].wins, found["rules"].ties, found["rules"].losses) == (1, 1, 1)
    assert found["rules"] == found["rules/iid"]
    assert "reward" not in found


def test_a_judge_endpoint_is_asked_beside_the_rules_in_both_orders(tmp_path: Path) -> None:
    texts = {"a": "good", "b": "bad", "c": "same", "d": "<think>good</think>bad"}
    ours = evaluated({name: {"answer": text} for name, text in texts.items()})
    theirs = evaluated(
        {"a": {"answer": "bad"}, "b": {"answer": "good"}, "c": {"answer": "same"}, "d": {"answer": "bad"}}
    )

    def prefers_good(one: str, other: str) -> str:
        return "TIE" if one == other else "A" if one == "good" else "B"

    with judge_server.serving(prefers_good) as server:
        settings = JudgeParams(url=server.url, model="judge-1")
        with Judge(settings, tmp_path / "cache.sqlite", key="report.judge") as endpoint:
            found = compare.win_rates(compare.compared(ours, theirs), endpoint)
    assert (found["judge"].wins, found["judge"].ties, found["judge"].losses) == (1, 2, 1)
    assert found["judge/iid"] == found["judge"]
    shown = {body["messages"][-1]["content"].partition("Answer A:")[2] for body in server.seen}
    assert len(shown) == 2  # good and bad in both orders; equal answers are not asked about
    assert all("Who?" in body["messages"][-1]["content"] for body in server.seen)
    assert found["rules"].ties == 4


def test_rewards_decide_when_all_answers_have_one() -> None:
    ours = evaluated({"a": {"reward": 2.0}, "b": {"reward": 1.0}})
    theirs = evaluated({"a": {"reward": 1.0}, "b": {"reward": 1.0}})
    assert compare.win_rates(compare.compared(ours, theirs))["reward"].rate == 0.75
    assert "reward" not in compare.win_rates(compare.compared(ours, evaluated({"a": {}})))


def test_only_the_first_line_of_a_plain_answer_is_judged() -> None:
    plain = whole("base", evaluated({"a": {"answer": "Me.\nI don't know."}}).answers, {}, prompt="plain")
    ((ours, _),) = compare.compared(plain, evaluated({"a": {}}))
    assert (ours["said"], ours["indicators"]) == ("Me.", ["right"])


def test_accuracy_changes_on_the_questions_both_were_asked() -> None:
    before = evaluated({"a": {"correct": True}, "b": {"correct": True}, "c": {}, "d": {}})
    after = evaluated({"a": {"correct": True}, "b": {}, "c": {}, "e": {"correct": True}})
    found = compare.changes(after, before)["accuracy/iid"]
    assert (found.before, found.after, found.count) == pytest.approx((2 / 3, 1 / 3, 3), abs=1e-6)
    assert found.change == pytest.approx(-1 / 3, abs=1e-6)
    assert (found.gained, found.lost) == (0, 1)
    assert found.low < found.change < found.high


def test_perplexity_changes_by_a_ratio_over_the_same_texts() -> None:
    before = evaluated({}, [(2 * math.log(2.0), 2), (2 * math.log(2.0), 2)])
    after = evaluated({}, [(2 * math.log(3.0), 2), (2 * math.log(3.0), 2)])
    found = compare.changes(after, before)["perplexity/documents"]
    assert found == Change(2.0, 3.0, 1.5, 1.5, 1.5, 2)
    other_tokens = evaluated({}, [(1.0, 2), (1.0, 3)])
    assert "perplexity/documents" not in compare.changes(after, other_tokens)


def test_prompts_without_a_reference_have_winners_and_no_accuracy() -> None:
    open_question = {"group": "prompts", "reference": None, "correct": None}
    ours, theirs = evaluated({"a": open_question}), evaluated({"a": open_question | {"answer": "..."}})
    assert compare.win_rates(compare.compared(ours, theirs))["rules/prompts"].wins == 1
    assert compare.changes(ours, theirs) == {}
