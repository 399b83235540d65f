"""What an answer of PPO is paid: the reward model's score in standard deviations of demonstrations,
and rewards that can be checked, weighted.

Imported late: it needs torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from stages.common.ppo import advantages
from stages.common.reward import checked
from stages.common.reward.checked import Prompt, Reward


@dataclass(frozen=True)
class Payment:
    """The rewards of a run; `unit` are mean and standard deviation of what demonstrations score."""

    rewards: Sequence[Reward]
    unit: tuple[float, float]
    clip: float

    @property
    def functions(self) -> list[Reward]:
        """The rewards that need no model."""
        return [one for one in self.rewards if one.function is not None]

    def checked(
        self, tokenizer: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], cut: Sequence[bool]
    ) -> dict[str, torch.Tensor]:
        """Return what each function gives each answer (tokens without their end) to its prompt, a
        `checked.Prompt`: [R] by name, NaN where it says nothing.
        """
        if not self.functions:
            return {}
        texts = [str(tokenizer.decode(list(answer), skip_special_tokens=True)) for answer in answers]
        asked = [prompt.asked for prompt in cast(Sequence[Prompt], prompts)]
        columns = checked.columns(self.functions, asked, texts, cut)
        return {
            name: torch.tensor([float("nan") if value is None else value for value in values])
            for name, values in columns.items()
        }

    def total(self, scores: torch.Tensor, functions: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum [R] of the reward model's `scores` [R] and of what functions
        gave, cut to [-clip, clip].

        Raises DataError as `advantages.normalise` does.
        """
        weights = {one.name: one.weight for one in self.rewards}
        if not self.functions and weights[checked.MODEL] == 1.0:
            return advantages.normalise(scores, *self.unit, self.clip)
        found = torch.zeros_like(scores)
        if checked.MODEL in weights:
            found = weights[checked.MODEL] * advantages.normalise(scores, *self.unit, torch.inf)
        for name, values in functions.items():
            found = found + weights[name] * values.nan_to_num(0.0)
        return found.clamp(-self.clip, self.clip)

    def paid(
        self, tokenizer: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], scores: list[float]
    ) -> list[float]:
        """Return what greedy answers (tokens without their end) are paid."""
        functions = self.checked(tokenizer, prompts, answers, [False] * len(answers))
        return [float(value) for value in self.total(torch.tensor(scores), functions)]
