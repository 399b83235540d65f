"""Whose answer is better: flaws first, then a reward model or a judge."""

from pathlib import Path

import pytest

from stages.common.core import models
from stages.common.core.records import message
from stages.common.ranking.llm_judge import JudgeParams
from stages.common.reward import scoring
from stages.common.runtime.errors import DataError, ParamsError, TryAgainError
from stages.common.serving.challenger.comparers import Comparer, Said, by_rules
from stages.common.serving.challenger.unseen import Unseen
from stages.common.serving.engine.champions import Question
from tests.common.reward.test_scoring import reward_model
from tests.support import judge_server
from tests.support.tiny import make_tokenizer

ASKED = [message("user", "What is the capital of France?")]


def said(text: str, is_cut: bool = False) -> Said:
    return Said(Question(ASKED, 8), False, text, is_cut)


GOOD, LOOP, OTHER = said("Paris is the capital."), said("la la la la la la la la la"), said("Lyon is the capital.")


def test_rules_prefer_the_answer_with_fewer_flaws() -> None:
    assert by_rules(LOOP, GOOD) == 1
    assert by_rules(GOOD, said("")) == -1
    assert by_rules(GOOD, said("Paris is the", is_cut=True)) == -1
    assert by_rules(GOOD, OTHER) == 0


def test_a_reward_model_says_what_the_rules_do_not_see(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    models.save(reward_model(), tokenizer, tmp_path / "r1")
    worth = scoring.score(scoring.load(tmp_path / "r1"), tokenizer, [ASKED] * 2, [GOOD.text, OTHER.text])
    compare = Comparer("reward", tmp_path / "r1")
    expected = 1.0 if worth[1] > worth[0] else -1.0
    assert (compare(GOOD, OTHER), compare(OTHER, GOOD)) == (expected, -expected)
    assert compare(GOOD, GOOD) == compare(GOOD, said("<think>hm</think>Paris is the capital.")) == 0
    assert (compare(LOOP, GOOD), compare(GOOD, LOOP)) == (1, -1), "a flaw goes before"
    with pytest.raises(DataError, match="the reward model reads 256"):
        compare(GOOD, said(" ".join(str(number) for number in range(2000))))


def test_a_judge_is_asked_in_both_orders_and_its_cost_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with judge_server.serving(lambda a, b: "A" if "Paris" in a else "B" if "Paris" in b else "A") as server:
        compare = Comparer("judge", judge=JudgeParams(url=server.url, model="judge-1", attempts=1, prompt_price=1e4))
        assert (compare(OTHER, GOOD), compare(GOOD, OTHER)) == (1, -1)
        assert compare(OTHER, said("Nice is the capital.")) == 0, "it contradicts itself"
        assert compare(GOOD, GOOD) == 0
        assert compare.figures() == {
            "judge_requests": 6,
            "judge_prompt_tokens": 600,
            "judge_completion_tokens": 6,
            "judge_cost": 6.0,
            "judge_unreadable": 0,
        }
        assert len(server.seen) == 4, "what was asked before is kept"
        server.failures = [(500, {})] * 9
        with pytest.raises(TryAgainError):
            compare(GOOD, said("Metz is the capital."))
    compare.close()


def test_what_nothing_could_compare_counts_as_answered_and_as_no_comparison(caplog: pytest.LogCaptureFixture) -> None:
    def away(champion: Said, challenger: Said) -> float:
        raise TryAgainError("the judge does not answer")

    unseen = Unseen(1.0, lambda: None, away)
    with caplog.at_level("WARNING"):
        assert [unseen._difference(GOOD, OTHER) for _ in range(3)] == [None] * 3
    assert (unseen.undecided, caplog.text.count("the judge does not answer")) == (3, 1)
    unseen.close()


def test_what_is_lacking_is_said_before_the_server_answers(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no reward model to compare by"):
        Comparer("reward", tmp_path / "none")
    with pytest.raises(ParamsError, match="no judge to compare by"):
        Comparer("judge")
    with pytest.raises(ParamsError, match=r"'deploy\.challenger\.judge\.model' is missing"):
        Comparer("judge", judge=JudgeParams())
