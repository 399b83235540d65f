"""Rollouts: a policy answers prompts, a reward model scores the answers, and PPO's targets are worked out.

The answers are those of one process whatever the number of processes: each answers its share of the prompts and all
hold the whole. Imported late: it needs torch.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from stages.common.generation import generator
from stages.common.generation.batch import Continuation
from stages.common.generation.sampling import Sampling
from stages.common.ppo import actor_critic
from stages.common.ppo import losses as ppo_core
from stages.common.ppo.actor_critic import Episodes
from stages.common.reward import scoring
from stages.common.runtime import process
from stages.common.runtime.errors import StopRequested
from stages.common.runtime.progress import Progress

QUANTILES = (0.05, 0.5, 0.95)


class Targets(NamedTuple):
    """What PPO makes of rewards (the stage's `Params` give all but the last two)."""

    gamma: float
    gae_lambda: float
    reward_clip: float
    end_penalty: float
    mean: float
    std: float


class Drawn(NamedTuple):
    """How answers are drawn, and where they end; a scored answer always ends with `end_of_turn`."""

    temperature: float
    max_new_tokens: int
    batch_size: int
    stops: Sequence[int]
    end_of_turn: int
    autocast: Callable[[], AbstractContextManager[Any]] | None
    """The trained forward's autocast, under which log-probabilities are then read again; None: the decoder's stand."""


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


@dataclass
class Rollout:
    """R episodes: `columns` are [R, T] (mask, log_probs, reference, values, advantages, returns), `scores` [R] raw."""

    number: int
    episodes: Episodes
    columns: dict[str, torch.Tensor]
    scores: torch.Tensor
    ended: torch.Tensor
    figures: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def lengths(self) -> torch.Tensor:
        """Return the tokens [R] of each answer."""
        return self.columns["mask"].sum(1)

    def tokens(self, rows: Sequence[int], *names: str) -> list[torch.Tensor]:
        """Return the named columns at the answer tokens of `rows`, each [N], row after row."""
        mask = self.columns["mask"][rows]
        return [self.columns[name][rows][mask] for name in names]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return vars(self) | {"episodes": [list(self.episodes.prompts), list(self.episodes.answers)]}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Rollout":
        """Return the rollout that `state` was made of."""
        return cls(**(state | {"episodes": Episodes(*state["episodes"])}))


class Collector:
    """Answers prompts with the policy of an `ActorCritic` and reads the answers with the three other models."""

    def __init__(
        self, reward: Any, reference: Any | None, drawn: Drawn, targets: Targets, seed: int, rank: int, world: int
    ) -> None:
        self.reward, self.reference, self.drawn, self.targets = reward, reference, drawn, targets
        self.seed, self.rank, self.world = seed, rank, world

    def collect(self, models: actor_critic.ActorCritic, prompts: Sequence[Sequence[int]], number: int) -> Rollout:
        """Return the rollout of all `prompts`, without advantages (see `finish`); `number` makes its answers its own.

        Raises StopRequested on request, and DataError for scores or logits that are not numbers.
        """
        began = time.monotonic()
        mine = list(prompts)[self.rank :: self.world]
        with torch.no_grad():
            answers = self._answer(models.policy, mine, number)
            answered = time.monotonic()
            episodes = Episodes(mine, [[*one.tokens, *([] if one.stop is None else [one.stop])] for one in answers])
            scores = self._score(mine, answers)
            with self.drawn.autocast() if self.drawn.autocast else nullcontext():
                columns = self._read(models, episodes, answers)
        rollout = Rollout(
            number, episodes, columns, torch.tensor(scores), torch.tensor([one.stop is not None for one in answers])
        )
        whole = gathered(rollout, self.world) if self.world > 1 else rollout
        whole.figures = figures(whole)
        whole.seconds = {"rollout": answered - began, "scoring": time.monotonic() - answered}
        return whole

    def finish(self, rollout: Rollout, coefficient: float) -> None:
        """Work out advantages and returns in place, with `coefficient` as the weight of KL."""
        columns, targets = rollout.columns, self.targets
        scores = ppo_core.normalise(rollout.scores, targets.mean, targets.std, targets.reward_clip)
        scores = ppo_core.end_penalty(scores, rollout.ended, targets.end_penalty)
        kl = ppo_core.kl_k1(columns["log_probs"], columns["reference"])
        rewards = ppo_core.token_rewards(scores, kl, columns["mask"], coefficient)
        found, returns = ppo_core.advantages(
            rewards, columns["values"], columns["mask"], targets.gamma, targets.gae_lambda
        )
        columns["advantages"], columns["returns"] = ppo_core.whiten(found, columns["mask"]), returns
        rollout.figures["explained_variance"] = ppo_core.explained_variance(
            columns["values"][columns["mask"]], returns[columns["mask"]]
        )

    def _answer(self, policy: Any, prompts: list[Sequence[int]], number: int) -> list[Continuation]:
        found = generator.decode(
            policy,
            prompts,
            max_new_tokens=self.drawn.max_new_tokens,
            stop=self.drawn.stops,
            sampling=Sampling(temperature=self.drawn.temperature, seed=self.seed * 1_000_003 + number),
            log_probabilities=self.drawn.autocast is None,
            batch_size=self.drawn.batch_size,
            progress=Quiet(len(prompts), self.world == 1),
        )
        return [one for (one,) in found]

    def _score(self, prompts: list[Sequence[int]], answers: list[Continuation]) -> list[float]:
        """Read every answer as the reward model was trained to: with an end of turn, given or not."""
        rows = [[*prompt, *one.tokens, self.drawn.end_of_turn] for prompt, one in zip(prompts, answers, strict=True)]
        return scoring.score_rows(self.reward, rows, self.drawn.batch_size)

    def _read(
        self, models: actor_critic.ActorCritic, episodes: Episodes, answers: list[Continuation]
    ) -> dict[str, torch.Tensor]:
        counts = [len(answer) for answer in episodes.answers]
        width, temperature = self.drawn.max_new_tokens, self.drawn.temperature
        if self.reference is not None:
            reference = actor_critic.log_probabilities(self.reference, episodes, temperature)
        else:  # the policy without its adapters
            with models.policy.disable_adapter():
                reference = actor_critic.log_probabilities(models.policy, episodes, temperature)
        if self.drawn.autocast:
            log_probs = actor_critic.log_probabilities(models.policy, episodes, temperature)
        else:
            log_probs = torch.tensor([value for one in answers for value in one.log_probabilities])
        columns = {
            "log_probs": log_probs,
            "reference": reference,
            "values": actor_critic.values(models.value, episodes),
        }
        return {name: padded(column.float().cpu(), counts, width) for name, column in columns.items()} | {
            "mask": torch.arange(width) < torch.tensor(counts)[:, None]
        }


def padded(column: torch.Tensor, counts: Sequence[int], width: int) -> torch.Tensor:
    """Return [R, width] of what is known of all answer tokens [N], of which each answer has `counts`; 0 behind them."""
    rows = pad_sequence(list(column.split(list(counts))), batch_first=True)
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]))


def gathered(mine: Rollout, world: int) -> Rollout:
    """Return the rollout of all processes in the order of the prompts, of which each answered every `world`-th."""
    from accelerate.utils import gather_object

    parts = gather_object([vars(mine)])
    place = np.argsort([at * world + rank for rank, part in enumerate(parts) for at in range(len(part["scores"]))])
    order = place.tolist()

    def join(pick: Any) -> torch.Tensor:
        return torch.cat([pick(part) for part in parts])[order]

    prompts = [prompt for part in parts for prompt in part["episodes"].prompts]
    answers = [answer for part in parts for answer in part["episodes"].answers]
    return Rollout(
        mine.number,
        Episodes([prompts[at] for at in order], [answers[at] for at in order]),
        {name: join(lambda part, name=name: part["columns"][name]) for name in mine.columns},
        join(lambda part: part["scores"]),
        join(lambda part: part["ended"]),
    )


def figures(rollout: Rollout) -> dict[str, float]:
    """Return what is watched: reward (raw, 0: as good as demonstrations), KL in nats a sequence, length, repetition."""
    columns, scores = rollout.columns, rollout.scores
    pair = columns["log_probs"], columns["reference"]
    found = {
        "reward": float(scores.mean()),
        **{f"reward_q{100 * share:02.0f}": float(scores.quantile(share)) for share in QUANTILES},
        "kl": float(ppo_core.kl_k3(*pair).sum(1).mean()),
        "kl_k1": float(ppo_core.kl_k1(*pair).sum(1).mean()),
        "length": float(rollout.lengths().float().mean()),
        "ended": float(rollout.ended.float().mean()),
        "repetition": float(np.mean([ppo_core.repetition(answer) for answer in rollout.episodes.answers])),
    }
    return {name: float(f"{value:.9g}") for name, value in found.items()}
