"""Supervised fine-tuning: the loss is taken on the assistant's tokens only, end of turn included.

Reads models/pretrain and data/validated/conversations. Writes models/sft (a folder per epoch, and
`last`) and its loss curve. Run: dvc repro sft
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from stages.common.core import chat, fused_head, models, params, special_tokens
from stages.common.core.sparse import pattern
from stages.common.finetuning import conversation_dataset, label_positions, lora, merging, packing
from stages.common.runtime import process
from stages.common.training import dropout, fit, fit_params, kept_models
from stages.common.training.resumable import Resumable, TrainerBase

if TYPE_CHECKING:
    import torch


class Params(lora.AdapterParams):
    """Section `sft` of params.yaml. `training` goes to TRL's SFTConfig; its `packing` is
    our own.
    """

    max_tokens: int = 256
    """Longest conversation; longer ones are counted and reported."""
    too_long: conversation_dataset.TooLong = "drop"
    """What becomes of longer ones: `drop` leaves them out, `truncate_left` keeps their last tokens,
    `split_turns` makes pieces of whole exchanges, each with the system turn, every answer in one.
    """
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of what every layer's attention and feed-forward part adds that is set to 0 in
    training.
    """


def main(
    model: Annotated[Path, typer.Option(help="folder of the base model")],
    conversations: Annotated[Path, typer.Option(help="validated conversations")],
    out: Annotated[Path, typer.Option(help="folder that gets one model folder per epoch, and `last`")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
) -> None:
    """Teach the base model to answer."""
    settings = params.load(Params, "sft")
    inputs = {"model": model, "conversations": conversations}
    with fit.start("sft", settings, inputs) as (run, fingerprint):
        trainer = build_trainer(settings, model, conversations, fingerprint)
        kept = fit.fit(trainer, settings, run, "sft")
        folders = {epoch.name: epoch for epoch in kept} | {"last": kept[-1]}
        kept_models.publish(trainer, folders, out, curve, run, "sft")


class AssistantLoss(TrainerBase):
    """Mixin before SFTTrainer: logits only where some row of the batch has a label, as long as they
    are few.

    TRL's fused head scores every position on a CPU and once more in backward; the loss is the same
    number.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: "torch.Tensor | None" = None,
    ) -> Any:
        """Return the mean negative log-likelihood of labelled tokens, over the whole step's
        `num_items_in_batch`.
        """
        keep, targets = label_positions.labelled_positions(inputs["labels"])
        features = {key: value for key, value in inputs.items() if key != "labels"}
        if fused_head.fits(model, targets.numel()):
            outputs = model(**features, use_cache=False, logits_to_keep=keep)
            loss = token_loss(outputs.logits, targets, num_items_in_batch)
        else:
            outputs = {"log_probs": fused_head.log_probs(model, features, inputs["labels"])}
            loss = -outputs["log_probs"].sum() / counted(targets, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def token_loss(logits: "torch.Tensor", targets: "torch.Tensor", count: "torch.Tensor | None") -> "torch.Tensor":
    """Return the summed cross-entropy of `logits` [B, K, V] against `targets` [B, K] (-100: none),
    over `count`.

    `count` defaults to the number of targets, at least 1.
    """
    from torch.nn.functional import cross_entropy

    total = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="sum")
    return total / counted(targets, count)


def counted(targets: "torch.Tensor", count: "torch.Tensor | None") -> "torch.Tensor":
    """Return `count`, or else the number of targets (-100: none); at least 1."""
    return ((targets != -100).sum() if count is None else count).clamp(min=1)


def build_trainer(settings: Params, model: Path, conversations: Path, fingerprint: str) -> Any:
    """Return TRL's SFTTrainer over tokenised conversations."""
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    class AssistantTrainer(Resumable, merging.Merged, AssistantLoss, SFTTrainer):
        """SFTTrainer with atomic checkpoints and the loss on assistant tokens."""

    given = {key: value for key, value in settings.training.items() if key != "packing"}  # TRL's takes no collator
    arguments = fit_params.config(
        SFTConfig,
        settings.model_copy(update={"training": given}),
        "sft",
        fingerprint,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    set_seed(arguments.seed)
    tokenizer = models.load_tokenizer(model)
    policy = lora.base(model, settings, "sft")
    models.check_context(policy.config, settings.max_tokens, "sft.max_tokens")
    pattern.refuse_compiled(policy.config, settings.training, "sft")
    chat.end_with_turn(policy, tokenizer)
    fused_head.bound_tiles(policy)
    dropout.add_residual(policy, settings.dropout, "sft.dropout")
    return AssistantTrainer(
        keep_checkpoints=settings.keep_checkpoints,
        model=policy,
        args=arguments,
        **read(settings, tokenizer, policy, conversations),
        processing_class=tokenizer,
        peft_config=lora.with_new_tokens(
            settings.adapters("sft"), policy, special_tokens.untrained(tokenizer), "sft.lora"
        ),
    )


def read(settings: Params, tokenizer: Any, policy: Any, conversations: Path) -> dict[str, Any]:
    """Return the trainer's train_dataset, eval_dataset and data_collator (None: TRL's own, which
    pads).

    With `packing` the conversations trained on share rows; those held out do not. Raises
    ParamsError for a model that then reads them otherwise than alone.
    """
    limits = (settings.max_tokens, settings.too_long)
    packed = bool(settings.training.get("packing"))
    train = conversation_dataset.tokenise(tokenizer, conversations / "train", *limits, packed=packed)
    validation = conversation_dataset.tokenise(tokenizer, conversations / "validation", *limits)
    if packed:
        first = [validation[at] for at in range(min(packing.CHECKED, len(validation)))]
        packing.check(policy, first, "sft.training.packing")
    collator = packing.Collator(tokenizer.pad_token_id) if packed else None
    return {"train_dataset": train, "eval_dataset": validation, "data_collator": collator}


if __name__ == "__main__":
    process.run("sft", main)
