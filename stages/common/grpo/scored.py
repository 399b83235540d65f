"""The rewards of GRPO: what each one says of answers, by the tokens they came as, and as TRL calls
them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stages.common.core import chat
from stages.common.reward import checked, scoring
from stages.common.reward.checked import Asked, Reward

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ASKED = ("question", "reference", "category")
"""Columns that `Asked` is made of."""


def row(tokens: Sequence[int], asked: Asked) -> dict[str, Any]:
    """Return one prompt as a row of the data set; TRL names its column `prompt`."""
    return {"prompt": list(tokens), **vars(asked)}


@dataclass(frozen=True)
class ModelScores:
    """Scores of the reward model; `unit` are mean and standard deviation of demonstrations."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    unit: tuple[float, float]
    batch_size: int

    def __call__(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[float]:
        """Return the score of each answer to its prompt (both tokens), 0 and 1 as demonstrations
        have it.
        """
        end, (mean, deviation) = chat.end_of_turn(self.tokenizer), self.unit
        rows = [
            [*prompt, *scoring.said(self.tokenizer, answer), end]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return [(one - mean) / (deviation or 1.0) for one in scoring.score_rows(self.model, rows, self.batch_size)]


@dataclass(frozen=True)
class Scored:
    """All rewards of a run; `model` scores for reward `model`."""

    rewards: list[Reward]
    model: ModelScores | None = None

    def columns(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        texts: Sequence[str],
        asked: Sequence[Asked],
        cut: Sequence[bool],
    ) -> dict[str, list[float | None]]:
        """Return what each reward gives each answer."""
        scores = partial(self.model, prompts, answers) if self.model else None
        return checked.columns(self.rewards, asked, texts, cut, scores)


def functions(scored: Scored, stops: Sequence[int]) -> list[Callable[..., list[float | None]]]:
    """Return one function a reward as TRL calls them, each with the reward's name."""

    def made(one: Reward) -> Callable[..., list[float | None]]:
        def function(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float | None]:
            facts = [Asked(*some) for some in zip(*(columns[name] for name in ASKED), strict=True)]
            cut = [ids[-1] not in stops for ids in completion_ids]
            answers = [ids[:-1] if ids[-1] in stops else ids for ids in completion_ids]
            return Scored([one], scored.model).columns(prompts, answers, completions, facts, cut)[one.name]

        function.__name__ = one.name
        return function

    return [made(one) for one in scored.rewards]
