"""What PPO's trainer is made of, beside what any `transformers.Trainer` is."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import chat, models, precision
from stages.common.finetuning import lora
from stages.common.generation.engines import choice
from stages.common.generation.engines.mirrored_policy import MirroredPolicy
from stages.common.ppo.kl import FixedKL
from stages.common.ppo.schedule import Schedule
from stages.common.ppo.settings import Settings
from stages.common.reward import calibration, scoring

if TYPE_CHECKING:
    from stages.common.ppo.actor_critic import ActorCritic
    from stages.common.ppo.collector import Collector
    from stages.common.tracking.run import Run
    from stages.common.training.packed_blocks import Blocks

MIRROR = ".rollout"
"""Folder beside the checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that PPO needs to train an `ActorCritic`; prompts are tokens."""

    settings: Settings
    schedule: Schedule
    collector: "Collector"
    controller: FixedKL
    prompts: list[list[int]]
    held_out: list[list[int]]
    """Prompts that the policy is evaluated on."""
    blocks: "Blocks | None"
    """Blocks of documents for the language-model loss; None without one."""
    run: "Run"


def load(settings: Settings, model: Path, reward: Path) -> "tuple[ActorCritic, Any, Any | None]":
    """Return what is trained, and what stays as it is: the reward model and the reference, None
    under adapters.

    Raises DataError for a model that PPO cannot train and ParamsError for one that reads too few
    tokens.
    """
    from stages.common.generation import packed_forward
    from stages.common.ppo import actor_critic

    policy, scorer = models.load(model, settings.held_dtype(model)), scoring.load(reward)
    for one in (policy, scorer):
        models.check_context(one.config, settings.max_tokens, "ppo.max_tokens")
        actor_critic.check_positions(one.config, settings.max_tokens, "ppo.max_tokens")
    actor_critic.check_head(policy)
    reference: Any = None
    if not settings.lora:
        reference = models.load(model, precision.frozen(model)).eval().requires_grad_(False)
    for one in (scorer, *([] if reference is None else [reference])):
        packed_forward.enable(one)
    actor = lora.wrap(policy, lora.config(settings.lora, "ppo.lora"))
    value = scoring.load(reward, settings.held_dtype(reward))
    critic = lora.wrap(value, lora.config(settings.lora, "ppo.lora", "SEQ_CLS"))
    return actor_critic.ActorCritic(actor, critic, settings.temperature), scorer, reference


def collector(
    settings: Settings, schedule: Schedule, tokenizer: Any, scorer: Any, reference: Any, conversations: Path, work: Path
) -> "Collector":
    """Return what makes rollouts; the answers in `conversations` give the unit of reward. In `work`
    an engine finds the weights of the policy.
    """
    from stages.common.ppo.collector import Collector

    most = (settings.demonstrations, settings.max_tokens)
    return Collector(
        settings=settings,
        schedule=schedule,
        tokenizer=tokenizer,
        reward=scorer,
        reference=reference,
        stops=chat.stops(tokenizer),
        end_of_turn=chat.end_of_turn(tokenizer),
        unit=calibration.unit(scorer, tokenizer, conversations, *most),
        mirror=mirror(settings, schedule, work) if choice.chosen() == "vllm" else None,
    )


def mirror(settings: Settings, schedule: Schedule, work: Path) -> MirroredPolicy:
    """Return the engine that answers for the policy; it starts with the first rollout."""
    rows = settings.rollout_batch_size
    return MirroredPolicy(work / MIRROR, rows=rows, most_tokens=settings.max_tokens, world=schedule.world)
