"""What PPO's trainer is made of, beside what any `transformers.Trainer` is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import chat, models, precision
from stages.common.finetuning import lora
from stages.common.generation.engines import choice
from stages.common.generation.engines.mirrored_policy import MIRROR, MirroredPolicy
from stages.common.ppo.kl import FixedKL
from stages.common.ppo.schedule import Schedule
from stages.common.reward import calibration, checked, score_head, scoring

if TYPE_CHECKING:
    import torch

    from stages.common.ppo.actor_critic import ActorCritic
    from stages.common.ppo.collector import Collector, Settings
    from stages.common.tracking.run import Run
    from stages.common.training.packed_blocks import Blocks, Mixed


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that PPO needs to train an `ActorCritic`; prompts are tokens."""

    settings: "Settings"
    schedule: Schedule
    collector: "Collector"
    controller: FixedKL
    prompts: Sequence[list[int]]
    held_out: Sequence[list[int]]
    """Prompts that the policy is evaluated on."""
    blocks: "Blocks | Mixed | None"
    """Blocks of documents for the language-model loss; None without one."""
    run: "Run"


def load(settings: "Settings", model: Path, reward: Path) -> "tuple[ActorCritic, Any]":
    """Return what is trained, and the reward model, which stays as it is. Under ZeRO-3 what is
    trained is read in parts; what stays as it is has no engine that would put it together, and is
    whole.

    Raises DataError for a model that PPO cannot train and ParamsError for one that reads too few
    tokens.
    """
    from stages.common.generation import packed_forward
    from stages.common.ppo import actor_critic

    policy = models.load(model, settings.held_dtype(model))
    with models.unsplit():
        scorer = scoring.load(reward, std_penalty=settings.heads_std_penalty)
    for one in (policy, scorer):
        models.check_context(one.config, settings.max_tokens, "ppo.max_tokens")
        actor_critic.check_positions(one.config, settings.max_tokens, "ppo.max_tokens")
    actor_critic.check_head(policy)
    packed_forward.enable(scorer)
    actor = lora.wrap(policy, lora.config(settings.lora, "ppo.lora"))
    value = score_head.folded(scoring.load(reward, settings.held_dtype(reward)))
    critic = lora.wrap(value, lora.config(settings.lora, "ppo.lora", "SEQ_CLS"))
    return actor_critic.ActorCritic(actor, critic, settings.temperature), scorer


def load_reference(settings: "Settings", model: Path, arguments: Any) -> Any | None:
    """Return the policy as it starts, on the device of the training, or None under adapters.

    It is held in the dtype in which the policy's probabilities are read, or KL would begin with the
    difference of two roundings.
    """
    from stages.common.generation import packed_forward

    if settings.lora:
        return None
    with models.unsplit():
        reference = models.load(model, compared_dtype(settings, model, arguments))
    packed_forward.enable(reference)
    return reference.to(arguments.device).eval().requires_grad_(False)


def compared_dtype(settings: "Settings", model: Path, arguments: Any) -> "torch.dtype":
    """Return the dtype of the reference's weights: DeepSpeed casts all of the policy's to that of
    its products, autocast leaves them and takes products in 16 bits.
    """
    import torch

    if not (arguments.bf16 or arguments.fp16):
        return settings.held_dtype(model)
    if arguments.deepspeed_plugin is not None:
        return torch.bfloat16 if arguments.bf16 else torch.float16
    return precision.frozen(model)


def collector(
    settings: "Settings",
    schedule: Schedule,
    tokenizer: Any,
    scorer: Any,
    reference: Any,
    conversations: Path,
    work: Path,
) -> "Collector":
    """Return what makes rollouts; the answers in `conversations` give the unit of reward. In `work`
    an engine finds the weights of the policy.
    """
    from stages.common.ppo.collector import Collector
    from stages.common.ppo.payment import Payment

    most = (settings.demonstrations, settings.max_tokens)
    rewards = checked.load(settings.rewards, "ppo.rewards")
    scored = checked.uses_model(rewards)
    unit = calibration.unit(scorer, tokenizer, conversations, *most) if scored else (0.0, 1.0)
    return Collector(
        settings=settings,
        schedule=schedule,
        tokenizer=tokenizer,
        reward=scorer if scored else None,
        reference=reference,
        stops=chat.stops(tokenizer),
        end_of_turn=chat.end_of_turn(tokenizer),
        payment=Payment(rewards, unit, settings.reward_clip),
        mirror=mirror(settings, schedule, work) if choice.chosen() == "vllm" else None,
    )


def mirror(settings: "Settings", schedule: Schedule, work: Path) -> MirroredPolicy:
    """Return the engine that answers for the policy; it starts with the first rollout."""
    rows = settings.rollout_batch_size
    return MirroredPolicy(work / MIRROR, rows=rows, most_tokens=settings.max_tokens, world=schedule.world)
