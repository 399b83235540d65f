"""Rollouts in the making: a policy answers, a reward model scores, and PPO's targets are worked
out.

The answers are those of one process whatever the number of processes: each answers its share of the
prompts and all hold the whole. Imported late: it needs torch.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence

from stages.common.finetuning import merging
from stages.common.generation import generator, sampling
from stages.common.generation.batch import Continuation
from stages.common.generation.engines.mirrored_policy import MirroredPolicy
from stages.common.generation.sampling import Sampling
from stages.common.ppo import actor_critic
from stages.common.ppo import advantages as ppo_advantages
from stages.common.ppo.actor_critic import Episodes
from stages.common.ppo.kl import kl_k1
from stages.common.ppo.payment import Payment
from stages.common.ppo.rollouts import Rollout, figures, gathered
from stages.common.ppo.schedule import Schedule
from stages.common.reward import scoring
from stages.common.reward.checked import Rewards
from stages.common.runtime import process
from stages.common.runtime.errors import StopRequested
from stages.common.runtime.progress import Progress

Autocast = Callable[[], AbstractContextManager[Any]]


class Settings(Protocol):
    """What rollouts, trainer and report read of the stage's `Params`, where each has its
    docstring.
    """

    keep_checkpoints: int
    lora: dict[str, Any] | None
    max_tokens: int
    max_new_tokens: int
    temperature: float
    rollout_batch_size: int
    demonstrations: int
    rewards: Rewards
    gamma: float
    gae_lambda: float
    reward_clip: float
    end_penalty: float
    clip: float
    value_clip: float | None
    value_warmup: int
    value_weight: float
    kl_stop: float
    ptx_weight: float
    ptx_blocks: int
    average_decay: float | None
    heads_std_penalty: float
    watch_prompts: int

    def held_dtype(self, folder: Path | str) -> Any:
        """Return the dtype that a trained model's weights are held in."""


class Quiet(Progress):
    """Counts without a line; ends the work on request, where no other process would wait for it."""

    def __init__(self, total: int, alone: bool) -> None:
        super().__init__(total)
        self.alone = alone

    def row(self, done: int) -> None:
        """Count one answer. Raises StopRequested."""
        self.rows += 1
        if self.alone and process.stop_requested():
            raise StopRequested


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Answers prompts with the policy of an `ActorCritic` and reads the answers with the three
    other models.
    """

    settings: Settings
    schedule: Schedule
    tokenizer: Any
    reward: Any | None
    """None: its score is no reward."""
    reference: Any | None
    """None: the policy without its adapters."""
    stops: Sequence[int]
    end_of_turn: int
    """What every scored answer ends with, whatever ended it."""
    payment: Payment
    mirror: MirroredPolicy | None = None
    """The engine that answers for the policy; None: it answers itself."""

    def collect(
        self,
        models: actor_critic.ActorCritic,
        prompts: Sequence[Sequence[int]],
        number: int,
        autocast: Autocast | None = None,
    ) -> Rollout:
        """Return the rollout of all `prompts`, without advantages (see `finish`); `number` makes
        its answers its own.

        With `autocast`, the trained forward's, and for an engine's answers, log-probabilities are
        read again as they are trained, and the decoder's kept beside them, for importance weights;
        without, the decoder's stand. Raises StopRequested on request, TryAgainError when the engine
        died, and DataError for scores or logits that are not numbers.
        """
        began = time.monotonic()
        rank, world = self.schedule.rank, self.schedule.world
        mine = list(prompts)[rank::world]
        with torch.no_grad():
            answers = self._answer(models.policy, mine, number, sampling.earlier(prompts)[rank::world])
            answered = time.monotonic()
            plain = [list(prompt) for prompt in mine]  # DeepSpeed makes what a model is given anew, by its class
            episodes = Episodes(plain, [[*one.tokens, *([] if one.stop is None else [one.stop])] for one in answers])
            scores = self._score(mine, answers)
            cut = [one.stop is None for one in answers]
            paid = self.payment.checked(self.tokenizer, mine, [one.tokens for one in answers], cut)
            with autocast() if autocast else nullcontext():
                columns = self._read(models, episodes, answers, bool(autocast or self.mirror))
        rollout = Rollout(number, episodes, columns, torch.tensor(scores), ~torch.tensor(cut), paid)
        whole = gathered(rollout, world) if world > 1 else rollout
        whole.figures = figures(whole, self.payment)
        whole.seconds = {"rollout": answered - began, "scoring": time.monotonic() - answered}
        return whole

    def finish(self, rollout: Rollout, coefficient: float) -> None:
        """Work out advantages and returns in place, with `coefficient` as the weight of KL."""
        columns, settings = rollout.columns, self.settings
        scores = self.payment.total(rollout.scores, rollout.paid)
        scores = ppo_advantages.end_penalty(scores, rollout.ended, settings.end_penalty)
        kl = kl_k1(columns["log_probs"], columns["reference"])
        rewards = ppo_advantages.token_rewards(scores, kl, columns["mask"], coefficient)
        found, returns = ppo_advantages.advantages(
            rewards, columns["values"], columns["mask"], settings.gamma, settings.gae_lambda
        )
        columns["advantages"], columns["returns"] = ppo_advantages.whiten(found, columns["mask"]), returns
        rollout.figures["explained_variance"] = ppo_advantages.explained_variance(
            columns["values"][columns["mask"]], returns[columns["mask"]]
        )

    def _answer(self, policy: Any, prompts: list[Sequence[int]], number: int, before: list[int]) -> list[Continuation]:
        """Return an answer to each prompt, with the decoder's log-probabilities; `before` as in
        `decode`.
        """
        found = generator.decode(
            merging.answering(policy, self.mirror),
            prompts,
            max_new_tokens=self.settings.max_new_tokens,
            stop=self.stops,
            sampling=Sampling(temperature=self.settings.temperature, seed=self.schedule.seed * 1_000_003 + number),
            log_probabilities=True,
            batch_size=self.settings.rollout_batch_size,
            progress=Quiet(len(prompts), self.schedule.world == 1),
            before=before,
        )
        if self.mirror is not None:
            self.mirror.rest()
        return [one for (one,) in found]

    def _score(self, prompts: list[Sequence[int]], answers: list[Continuation]) -> list[float]:
        """Read what every answer says as the reward model was trained to: with an end of turn,
        given or not; 0 where its score is no reward.
        """
        if self.reward is None:
            return [0.0] * len(answers)
        spoken = [scoring.said(self.tokenizer, one.tokens) for one in answers]
        rows = [[*prompt, *answer, self.end_of_turn] for prompt, answer in zip(prompts, spoken, strict=True)]
        return scoring.score_rows(self.reward, rows, self.settings.rollout_batch_size)

    def _read(
        self, models: actor_critic.ActorCritic, episodes: Episodes, answers: list[Continuation], again: bool
    ) -> dict[str, torch.Tensor]:
        """Return the columns that models give; log-probabilities are the decoder's, or are read
        `again`.
        """
        counts = [len(answer) for answer in episodes.answers]
        width, temperature = self.settings.max_new_tokens, self.settings.temperature
        if self.reference is not None:
            reference = actor_critic.log_probabilities(self.reference, episodes, temperature)
        else:
            with models.policy.disable_adapter():
                reference = actor_critic.log_probabilities(models.policy, episodes, temperature)
        sampled = torch.tensor([value for one in answers for value in one.log_probabilities])
        columns = {
            "log_probs": actor_critic.log_probabilities(models.policy, episodes, temperature) if again else sampled,
            "reference": reference,
            "values": actor_critic.values(models.value, episodes),
            **({"sampled": sampled} if again else {}),
        }
        return {name: padded(column.float().cpu(), counts, width) for name, column in columns.items()} | {
            "mask": torch.arange(width) < torch.tensor(counts)[:, None]
        }


def padded(column: torch.Tensor, counts: Sequence[int], width: int) -> torch.Tensor:
    """Return [R, width] of what is known of all answer tokens [N], of which each answer has
    `counts`; 0 behind them.
    """
    rows = pad_sequence(list(column.split(list(counts))), batch_first=True)
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]))
