"""What says which of two answers to a question is better: rules that see flaws; where these see no
difference a reward model, or a judge behind an endpoint.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stages.common.core import models
from stages.common.ranking.llm_judge import Judge, JudgeParams
from stages.common.ranking.samples import Sample
from stages.common.reward import scoring
from stages.common.runtime.errors import ParamsError
from stages.common.serving.engine.champions import Question
from stages.common.text import rule_grader
from stages.common.text.thoughts import without_thoughts

By = Literal["rules", "reward", "judge"]
KEY = "deploy.challenger.judge"


class Said(NamedTuple):
    """A question that was answered: by the challenger where `takes`, and with what."""

    question: Question
    takes: bool
    text: str
    is_cut: bool


Compare = Callable[[Said, Said], float]
"""Of the champion's answer and the challenger's: 1 where the challenger's is better, -1 where it is
worse, else 0.
"""


class Comparer:
    """Compares by rules, and then as `by` says. Raises what loading a reward model does, and
    ParamsError for a judge without a name.
    """

    def __init__(self, by: By = "rules", reward: Path | None = None, judge: JudgeParams | None = None) -> None:
        self._judge: Judge | None = None
        self._further: Compare | None = None
        if by == "reward":
            if reward is None or not reward.is_dir():
                remedy = "deploy.challenger.reward: a folder with a reward model (dvc pull), or compare: rules"
                raise ParamsError(
                    "there is no reward model to compare by", where=reward or "params.yaml", remedy=remedy
                )
            self._further = by_reward(reward)
        if by == "judge":
            if judge is None:
                remedy = f"{KEY}: {{url: …, model: …}}, or compare: rules"
                raise ParamsError("no judge to compare by", where="params.yaml", remedy=remedy)
            self._judge = Judge(judge, key=KEY)
            self._further = by_judge(self._judge)

    def __call__(self, champion: Said, challenger: Said) -> float:
        """Return 1 where the challenger's answer is better, -1 where it is worse, else 0. Raises
        StageError where the reward model or the judge cannot say.
        """
        if found := by_rules(champion, challenger):
            return found
        if self._further is None or without_thoughts(champion.text) == without_thoughts(challenger.text):
            return 0.0
        return self._further(champion, challenger)

    def figures(self) -> dict[str, float]:
        """Return what was asked of a judge, and what it cost."""
        return {f"judge_{key}": value for key, value in self._judge.summary().items()} if self._judge else {}

    def close(self) -> None:
        """Ask no more."""
        if self._judge:
            self._judge.close()


def by_rules(champion: Said, challenger: Said) -> float:
    """Compare by the rules that rank answers. Without a reference they know flaws alone: empty,
    cut, looping, rude.
    """
    question = str(champion.question.messages[-1]["content"])
    scores = [
        rule_grader.score(rule_grader.judge(question, one.text, None, None, one.is_cut), rule_grader.WEIGHTS)
        for one in (champion, challenger)
    ]
    return float((scores[1] > scores[0]) - (scores[1] < scores[0]))


def by_reward(folder: Path) -> Compare:
    """Return a comparison by the reward model in `folder`, kept in memory."""
    model, tokenizer = scoring.load(folder), models.load_tokenizer(folder)

    def compare(champion: Said, challenger: Said) -> float:
        prompts = [champion.question.messages] * 2
        worth = scoring.score(model, tokenizer, prompts, [champion.text, challenger.text])
        return float((worth[1] > worth[0]) - (worth[1] < worth[0]))

    return compare


def by_judge(judge: Judge) -> Compare:
    """Return a comparison by a judge, asked in both orders: where it contradicts itself none is
    better.
    """

    def compare(champion: Said, challenger: Said) -> float:
        record: dict[str, Any] = {"messages": champion.question.messages, "reference": None}
        return 1.0 - 2.0 * judge.compare(Sample(record, [champion.text, challenger.text], [False, False]), 0, 1)

    return compare
