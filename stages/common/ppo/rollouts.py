"""A rollout: prompts that a policy has answered, what the models say of the answers, and what is
watched of them.

Imported late: it needs torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from stages.common.ppo import kl as ppo_kl
from stages.common.ppo import losses as ppo_losses
from stages.common.ppo.actor_critic import Episodes
from stages.common.ppo.payment import Payment

QUANTILES = (0.05, 0.5, 0.95)


@dataclass
class Rollout:
    """R episodes: `columns` are [R, T] (mask, log_probs, reference, values, advantages, returns),
    `scores` [R] raw.

    A column `sampled`, where there is one, has the decoder's log-probabilities, of another
    precision or engine than `log_probs`.
    """

    number: int
    episodes: Episodes
    columns: dict[str, torch.Tensor]
    scores: torch.Tensor
    ended: torch.Tensor
    paid: dict[str, torch.Tensor] = field(default_factory=dict)
    """What rewards that can be checked gave, each [R], NaN where they say nothing."""
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


def gathered(mine: Rollout, world: int) -> Rollout:
    """Return the rollout of all processes in the order of the prompts, of which each answered every
    `world`-th.
    """
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
        {name: join(lambda part, name=name: part["paid"][name]) for name in mine.paid},
    )


def figures(rollout: Rollout, payment: Payment) -> dict[str, float]:
    """Return what is watched: reward (of the reward model alone raw, 0: as good as demonstrations;
    else what is paid), each reward that can be checked, KL in nats a sequence, length, repetition.
    """
    columns = rollout.columns
    scores = payment.total(rollout.scores, rollout.paid) if rollout.paid else rollout.scores
    pair = columns["log_probs"], columns["reference"]
    found = {
        "reward": float(scores.mean()),
        **{f"reward_q{100 * share:02.0f}": float(scores.quantile(share)) for share in QUANTILES},
        "kl": float(ppo_kl.kl_k3(*pair).sum(1).mean()),
        "kl_k1": float(ppo_kl.kl_k1(*pair).sum(1).mean()),
        "length": float(rollout.lengths().float().mean()),
        "ended": float(rollout.ended.float().mean()),
        "repetition": float(np.mean([repetition(answer) for answer in rollout.episodes.answers])),
    }
    found |= {f"reward/{name}": float(values.nanmean()) for name, values in rollout.paid.items()}
    if rollout.paid and any(one.function is None for one in payment.rewards):
        found["reward/model"] = float(rollout.scores.mean())
    if "sampled" in columns:
        found |= mismatch(*rollout.tokens(range(len(scores)), "log_probs", "sampled"))
    return {name: float(f"{value:.9g}") for name, value in found.items()}


def mismatch(log_probs: torch.Tensor, sampled: torch.Tensor) -> dict[str, float]:
    """Return how far the decoder's log-probabilities [N] are from those that are trained on, in
    nats a token.
    """
    weights = ppo_losses.importance(log_probs, sampled)
    apart = (sampled - log_probs).abs()
    return {
        "mismatch_mean": float(apart.mean()),
        "mismatch_kl": float(ppo_kl.kl_k3(sampled, log_probs).mean()),
        "mismatch_most": float(apart.max()),
        "mismatch_truncated": float((weights >= ppo_losses.MOST_IMPORTANT).float().mean()),
    }


def repetition(tokens: Sequence[int], n: int = 3) -> float:
    """Return the share of an answer's n-grams that occurred in it before; 0 when it is shorter than
    n.
    """
    grams = [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
