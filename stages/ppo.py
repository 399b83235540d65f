"""PPO (Schulman et al. 2017; Ouyang et al. 2022, section 3.5): answers the reward model likes, near
SFT's best.

Reads a policy, a reward model, the prompts of a round's samples, conversations (whose answers'
scores give the unit of reward) and documents (for PPO-ptx). Writes models/ppo/<round>, its curve
and a report on held-out prompts. Run: dvc repro ppo@r1
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from stages.common.core import left_out, models, params, records
from stages.common.finetuning import lora
from stages.common.generation.engines import choice
from stages.common.monitor import watch
from stages.common.ppo import kl as ppo_kl
from stages.common.ppo import report as ppo_report
from stages.common.ppo import setup as ppo_setup
from stages.common.ppo import trainer as ppo_trainer
from stages.common.ppo.schedule import Schedule
from stages.common.reward import checked
from stages.common.reward import prompts as reward_prompts
from stages.common.runtime import process
from stages.common.training import fit, fit_params, packed_blocks

if TYPE_CHECKING:
    from stages.common.tracking.run import Run

Share = Annotated[float, Field(ge=0, le=1)]


class Params(watch.WatchParams, lora.LoraParams):
    """Section `ppo` of params.yaml. `training` goes to transformers' TrainingArguments; a batch
    counts episodes; `lora` is for policy and value model.
    """

    max_tokens: PositiveInt = 256
    """Longest prompt with its answer; prompts without room for max_new_tokens are left out."""
    max_new_tokens: PositiveInt = 48
    """Longest answer; one that is cut there pays `end_penalty`."""
    temperature: PositiveFloat = 1.0
    """Temperature of the sampled answers, and of all log-probabilities."""
    rollout_episodes: PositiveInt = 256
    """Episodes between two looks at the policy, over all processes."""
    rollouts_per_epoch: PositiveInt | None = None
    """Rollouts of an epoch, at whose end the policy is kept; null: a pass over the prompts."""
    rollout_batch_size: PositiveInt = 64
    """Prompts answered, and answers scored, at once by a process."""
    ppo_epochs: PositiveInt = 2
    """How often the episodes of a rollout are learnt from."""
    clip: PositiveFloat = 0.2
    """How far the probability ratio may move before it stops paying."""
    value_clip: PositiveFloat | None = None
    """How far a value may move from its old one before it stops paying; null: as far as it will."""
    value_warmup: NonNegativeInt = 2
    """Rollouts that only the value model learns from: it starts as no judge of half an answer."""
    value_weight: NonNegativeFloat = 0.1
    """Weight of the value loss."""
    gamma: Share = 1.0
    """Discount of rewards."""
    gae_lambda: Share = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the value model, 1 the reward alone."""
    kl_coefficient: NonNegativeFloat = 0.05
    """Weight of KL to the starting policy in the reward, per nat."""
    kl_target: PositiveFloat | None = None
    """KL in nats a sequence that the coefficient is steered to (Ziegler et al. 2019); null: it
    stays as it is.
    """
    kl_horizon: PositiveInt = 10_000
    """Episodes over which the steered coefficient moves."""
    kl_stop: PositiveFloat = 20.0
    """KL in nats a sequence at which training stops; the best policy kept below it is what comes
    out.
    """
    rewards: checked.Rewards = {checked.MODEL: 1.0}
    """Weight by reward, as in section `grpo`; that of the reward model is for standard deviations
    of the demonstrations' scores.
    """
    heads_std_penalty: NonNegativeFloat = 0.0
    """Standard deviations of the reward model's heads that are taken off their mean; above 0 it
    needs `reward.heads` above 1.
    """
    reward_clip: PositiveFloat = 5.0
    """Largest reward, in standard deviations of the demonstrations' scores."""
    end_penalty: NonNegativeFloat = 1.0
    """What an answer without an end of turn loses of its reward."""
    ptx_weight: NonNegativeFloat = 0.0
    """Weight of the language-model loss on documents beside PPO's (PPO-ptx); 0: none is read."""
    ptx_blocks: PositiveInt = 4
    """Blocks of documents read beside each minibatch of a process."""
    ptx_block_tokens: PositiveInt = 256
    """Tokens of a block."""
    ptx_conversations: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of these blocks that are conversations, as SFT read them: what no prompt asks for, a
    call of a tool for example, is kept by them.
    """
    average_decay: Share | None = None
    """Decay of a moving average of the policy's weights, which is then what is kept; null: the
    weights themselves.
    """
    demonstrations: PositiveInt = 1000
    """Conversations, the first of the training split, whose answers' scores give the unit of
    reward.
    """


def main(
    model: Annotated[Path, typer.Option(help="folder of the policy to start from; it is also the reference")],
    reward: Annotated[Path, typer.Option(help="folder of the reward model; the value model starts from it")],
    samples: Annotated[Path, typer.Option(help="a round's samples: their prompts are answered anew")],
    conversations: Annotated[Path, typer.Option(help="validated conversations: what good answers score")],
    documents: Annotated[Path, typer.Option(help="validated documents, read with ptx_weight above 0")],
    out: Annotated[Path, typer.Option(help="folder of the model")],
    curve: Annotated[Path, typer.Option(help="CSV of reward and KL, a row a rollout")],
    report: Annotated[Path, typer.Option(help="JSON report on held-out prompts")],
) -> None:
    """Teach the model to answer what the reward model likes."""
    settings = params.load(Params, "ppo")
    inputs = {"model": model, "reward": reward, "samples": samples, "conversations": conversations}
    inputs |= {"documents": documents} if settings.ptx_weight else {}
    inputs |= checked.sources(checked.load(settings.rewards, "ppo.rewards"))
    missing = left_out.allowed(folders=[out], tables={curve: ",".join(ppo_report.COLUMNS)}, reports=[report])
    with fit.start("ppo", settings, inputs, choice.section()) as (run, fingerprint), missing:
        left_out.need(reward, "the reward model")
        prompts = read(settings, model, samples)
        places = {"model": model, "reward": reward, "conversations": conversations, "documents": documents}
        trainer = build_trainer(settings, prompts, run, fingerprint, **places)
        kept = fit.fit(trainer, settings, run, "ppo")
        ppo_report.publish(trainer, kept, start=model, reward=reward, out=out, curve=curve, report=report)


def read(settings: Params, model: Path, samples: Path) -> dict[str, list[checked.Prompt]]:
    """Return the prompts of both splits as tokens, as `reward.prompts.read` does."""
    rewards = checked.load(settings.rewards, "ppo.rewards")
    tokenizer, room = models.load_tokenizer(model), settings.max_tokens - settings.max_new_tokens
    return {split: reward_prompts.read(tokenizer, samples / split, room, rewards, "ppo") for split in records.SPLITS}


def build_trainer(
    settings: Params,
    prompts: Mapping[str, Sequence[list[int]]],
    run: "Run",
    fingerprint: str,
    *,
    model: Path,
    reward: Path,
    conversations: Path,
    documents: Path,
) -> Any:
    """Return a Trainer whose steps are PPO's minibatches, over prompts as tokens by split."""
    from transformers import Trainer, TrainingArguments, set_seed

    class PPOTrainer(ppo_trainer.Updates, Trainer):
        """Trainer with atomic checkpoints and PPO's steps."""

    tokenizer = models.load_tokenizer(model)
    arguments = fit_params.config(TrainingArguments, settings, "ppo", fingerprint, remove_unused_columns=False)
    set_seed(arguments.seed)  # fresh adapters are drawn
    trained, scorer = ppo_setup.load(settings, model, reward)
    reference = ppo_setup.load_reference(settings, model, arguments)
    set_seed(arguments.seed)
    schedule = scheduled(settings, arguments, len(prompts["train"]))
    setup = ppo_setup.Setup(
        settings=settings,
        schedule=schedule,
        collector=ppo_setup.collector(
            settings, schedule, tokenizer, scorer, reference, conversations, Path(arguments.output_dir)
        ),
        controller=ppo_kl.controller(settings.kl_coefficient, settings.kl_target, settings.kl_horizon),
        prompts=prompts["train"],
        held_out=prompts["validation"],
        blocks=blocks(settings, tokenizer, documents, conversations) if settings.ptx_weight else None,
        run=run,
    )
    trainer = PPOTrainer(setup, model=trained, args=arguments, processing_class=tokenizer)
    if settings.watch_prompts:
        held_out = cast(Sequence[checked.Prompt], prompts["validation"])
        trainer.watch = watch.begin("ppo", settings, [one.asked for one in held_out], run)
    return trainer


def scheduled(settings: Params, arguments: Any, prompts: int) -> Schedule:
    """Return what is read when."""
    return Schedule(
        rollout=settings.rollout_episodes,
        rollouts=settings.rollouts_per_epoch or max(1, round(prompts / settings.rollout_episodes)),
        ppo_epochs=settings.ppo_epochs,
        batch=arguments.per_device_train_batch_size,
        accumulation=arguments.gradient_accumulation_steps,
        rank=arguments.process_index,
        world=arguments.world_size,
        seed=arguments.seed,
    )


def blocks(
    settings: Params, tokenizer: Any, documents: Path, conversations: Path
) -> packed_blocks.Blocks | packed_blocks.Mixed:
    """Return documents, and conversations where wanted, as blocks for the language-model loss."""
    text = packed_blocks.documents(tokenizer, documents / "train", settings.ptx_block_tokens)
    if not settings.ptx_conversations:
        return text
    talk = packed_blocks.conversations(tokenizer, conversations / "train", settings.ptx_block_tokens)
    return packed_blocks.Mixed(text, talk, settings.ptx_conversations)


if __name__ == "__main__":
    process.run("ppo", main)
