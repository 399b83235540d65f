"""GRPO (Shao et al. 2024, section 4): several answers to a prompt, each learnt from by how much
better it is than the others of its group; no value model, and rewards that can be checked.

Reads a policy, the prompts of a round's samples and, for reward `model`, a reward model and the
conversations that give its unit. Writes models/grpo, its curve and a report on held-out prompts.
Run: dvc repro grpo
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from stages.common.core import chat, left_out, models, params, records
from stages.common.finetuning import lora
from stages.common.generation.engines import choice
from stages.common.generation.engines.mirrored_policy import MIRROR, MirroredPolicy
from stages.common.grpo import report as grpo_report
from stages.common.grpo import scored
from stages.common.grpo import trainer as grpo_trainer
from stages.common.monitor import watch
from stages.common.reward import calibration, checked, prompts, scoring
from stages.common.runtime import process
from stages.common.runtime.errors import ParamsError
from stages.common.training import dropout, fit, fit_params

if TYPE_CHECKING:
    from datasets import Dataset

    from stages.common.tracking.run import Run


class Params(watch.WatchParams, lora.AdapterParams):
    """Section `grpo` of params.yaml. `training` goes to TRL's GRPOConfig (`num_generations`,
    `beta`, `loss_type`, `scale_rewards`, …); a batch counts answers.
    """

    skip: bool = False
    """Whether this candidate is left out."""
    rewards: checked.Rewards = {checked.MODEL: 1.0}
    """Weight by reward: `model` (the reward model, in standard deviations of demonstrations),
    `rules`, `exact`, `contains`, `number`, `boxed`, `choice`, `json_schema`, `length`, or
    `module:function`.
    """
    heads_std_penalty: NonNegativeFloat = 0.0
    """Standard deviations of the reward model's heads that are taken off their mean; above 0 it
    needs `reward.heads` above 1.
    """
    max_tokens: PositiveInt = 256
    """Longest prompt with its answer; prompts without room for max_new_tokens are left out."""
    max_new_tokens: PositiveInt = 48
    """Longest answer."""
    decode_batch_size: PositiveInt = 64
    """Answers under way, and scored, at once by a process."""
    demonstrations: Annotated[int, Field(ge=2)] = 1000
    """Conversations whose answers' scores give the unit of the reward model."""
    watch_every: PositiveInt = 10
    """Steps between two looks."""
    held_out_prompts: NonNegativeInt = 0
    """Held-out prompts, the first, that every epoch is measured on; 0: all."""


def main(
    model: Annotated[Path, typer.Option(help="folder of the policy to start from")],
    reward: Annotated[Path, typer.Option(help="folder of the reward model, for reward `model`")],
    samples: Annotated[Path, typer.Option(help="a round's samples: their prompts are answered anew")],
    conversations: Annotated[Path, typer.Option(help="validated conversations: what good answers score")],
    out: Annotated[Path, typer.Option(help="folder of the model")],
    curve: Annotated[Path, typer.Option(help="CSV of the rewards, a row a step")],
    report: Annotated[Path, typer.Option(help="JSON report on held-out prompts")],
) -> None:
    """Teach the model to answer so that the rewards rise."""
    settings = params.load(Params, "grpo")
    if settings.skip:
        return left_out.skip("grpo.skip is true", [out], {curve: ",".join(grpo_report.COLUMNS)}, [report])
    rewards = checked.load(settings.rewards, "grpo.rewards")
    inputs = {"model": model, "samples": samples} | checked.sources(rewards)
    if checked.uses_model(rewards):
        inputs |= {"reward": reward, "conversations": conversations}
    missing = left_out.allowed(folders=[out], tables={curve: ",".join(grpo_report.COLUMNS)}, reports=[report])
    with fit.start("grpo", settings, inputs, choice.section()) as (run, fingerprint), missing:
        if checked.uses_model(rewards):
            left_out.need(reward, "the reward model")
        asked = read(settings, model, samples, rewards)
        places = {"model": model, "reward": reward, "conversations": conversations}
        trainer = build_trainer(settings, rewards, asked, run, fingerprint, **places)
        kept = fit.fit(trainer, settings, run, "grpo")
        grpo_report.publish(trainer, kept, start=model, out=out, curve=curve, report=report, run=run)


def read(settings: Params, model: Path, samples: Path, rewards: list[checked.Reward]) -> "dict[str, Dataset]":
    """Return the prompts of both splits that a reward can say something about. Raises LackError as
    `prompts.read` does.
    """
    from datasets import Dataset

    tokenizer, room = models.load_tokenizer(model), settings.max_tokens - settings.max_new_tokens
    found = {split: prompts.read(tokenizer, samples / split, room, rewards, "grpo") for split in records.SPLITS}
    if settings.held_out_prompts:
        found["validation"] = found["validation"][: settings.held_out_prompts]
    return {split: Dataset.from_list([scored.row(one, one.asked) for one in some]) for split, some in found.items()}


def scores(
    settings: Params, rewards: list[checked.Reward], model: Path, reward: Path, conversations: Path
) -> scored.Scored:
    """Return what gives the rewards; of the reward model, if it is one of them, 0 and 1 as
    demonstrations score.
    """
    if not checked.uses_model(rewards):
        return scored.Scored(rewards)
    tokenizer = models.load_tokenizer(model)
    with models.unsplit():  # it has no engine that would put it together
        scorer = scoring.load(reward, std_penalty=settings.heads_std_penalty)
    models.check_context(scorer.config, settings.max_tokens, "grpo.max_tokens")
    unit = calibration.unit(scorer, tokenizer, conversations, settings.demonstrations, settings.max_tokens)
    return scored.Scored(rewards, scored.ModelScores(scorer, tokenizer, unit, settings.decode_batch_size))


def build_trainer(
    settings: Params,
    rewards: list[checked.Reward],
    asked: "dict[str, Dataset]",
    run: "Run",
    fingerprint: str,
    *,
    model: Path,
    reward: Path,
    conversations: Path,
) -> Any:
    """Return TRL's GRPOTrainer, answering with our decoder and rendering with our template.

    Raises ParamsError where a group would be split among processes.
    """
    from trl import GRPOConfig, GRPOTrainer

    class GroupTrainer(grpo_trainer.Answering, GRPOTrainer):
        """GRPOTrainer with atomic checkpoints, whose answers do not depend on the processes."""

    own: dict[str, Any] = {
        "max_completion_length": settings.max_new_tokens,
        "remove_unused_columns": False,
        "reward_weights": [one.weight for one in rewards],
    }
    arguments = fit_params.config(GRPOConfig, settings, "grpo", fingerprint, **own)
    check_groups(arguments)
    rewarded = scores(settings, rewards, model, reward, conversations)
    tokenizer = models.load_tokenizer(model)
    policy = lora.base(model, settings, "grpo")
    models.check_context(policy.config, settings.max_tokens, "grpo.max_tokens")
    made = GroupTrainer(
        scored=rewarded,
        decode_batch_size=settings.decode_batch_size,
        keep_checkpoints=settings.keep_checkpoints,
        model=policy,
        args=arguments,
        run=run,
        mirror=mirror(settings, arguments) if choice.chosen() == "vllm" else None,
        reward_funcs=scored.functions(rewarded, chat.stops(tokenizer)),
        train_dataset=asked["train"],
        eval_dataset=asked["validation"],
        processing_class=tokenizer,
        peft_config=lora.config(settings.lora, "grpo.lora"),
    )
    if settings.watch_prompts:
        facts = [checked.Asked(*(row[name] for name in scored.ASKED)) for row in asked["validation"]]
        made.watch = watch.begin("grpo", settings, facts, run)
    dropout.switch_off(made.model)  # or an answer's probability is another each time it is read
    return made


def mirror(settings: Params, arguments: Any) -> MirroredPolicy:
    """Return the engine that answers for the policy; it starts with the first answers."""
    folder = Path(arguments.output_dir) / MIRROR
    rows, most = settings.decode_batch_size, settings.max_tokens
    return MirroredPolicy(folder, rows=rows, most_tokens=most, world=arguments.world_size)


def check_groups(arguments: Any) -> None:
    """Raise ParamsError where a group of answers would be split among processes: each would draw
    the same ones.
    """
    together = arguments.per_device_train_batch_size * arguments.steps_per_generation
    if together % arguments.num_generations:
        what = f"{together} answers of a process at a time are no whole groups of {arguments.num_generations}"
        remedy = "choose grpo.training.per_device_train_batch_size as a multiple of num_generations"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy=remedy)


if __name__ == "__main__":
    process.run("grpo", main)
