"""ORPO (Hong, Lee & Thorne 2024): learn to answer and to prefer in one training, from the base
model, no reference.

Reads models/pretrain and comparisons, given by people or ranked in a round. Writes models/orpo and
its loss curve. Run: dvc repro orpo
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import NonNegativeFloat

from stages.common.core import chat, fused_head, left_out, models, params, special_tokens
from stages.common.finetuning import label_positions, lora, merging
from stages.common.pairs import pair_dataset, preference_pairs
from stages.common.runtime import process
from stages.common.training import fit, fit_params, kept_models
from stages.common.training.resumable import Resumable, TrainerBase

if TYPE_CHECKING:
    import torch

CERTAIN = -1e-7  # the log-probability above which 1 - p is no longer told from 0 in fp32


class Params(preference_pairs.PairParams, lora.AdapterParams):
    """Section `orpo` of params.yaml. `training` goes to transformers' TrainingArguments."""

    odds_weight: NonNegativeFloat = 0.1
    """Weight of the odds-ratio term beside the likelihood of the better answer (the paper's
    lambda).
    """


def main(
    model: Annotated[Path, typer.Option(help="folder of the base model")],
    comparisons: Annotated[list[Path], typer.Option(help="ranked answers; may be given several times")],
    out: Annotated[Path, typer.Option(help="folder of the model")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
) -> None:
    """Teach the base model to answer, and which answers people prefer."""
    settings = params.load(Params, "orpo")
    inputs = preference_pairs.inputs(model=model, comparisons=comparisons)
    missing = left_out.allowed(folders=[out], tables={curve: kept_models.CURVE})
    with fit.start("orpo", settings, inputs) as (run, fingerprint), missing:
        trainer = build_trainer(settings, model, comparisons, fingerprint)
        kept = fit.fit(trainer, settings, run, "orpo")
        kept_models.publish(trainer, {"": kept[-1]}, out, curve, run, "orpo")


def orpo_loss(chosen: "torch.Tensor", rejected: "torch.Tensor", odds_weight: float) -> "torch.Tensor":
    """Return the mean over pairs of -log P(chosen) + odds_weight * -log sigmoid(log odds ratio)
    (paper, eq. 6 and 7).

    `chosen`, `rejected`: [B] mean log-probability per token of the two answers, eq. 3; odds = P /
    (1 - P), eq. 4.
    """
    from torch.nn.functional import logsigmoid

    ratio = log_odds(chosen) - log_odds(rejected)
    return (-chosen - odds_weight * logsigmoid(ratio)).mean()


def log_odds(log_probability: "torch.Tensor") -> "torch.Tensor":
    """Return log(p / (1 - p)) of log p; a p that rounds to 1 counts as 1 - 1e-7."""
    import torch

    certain = log_probability.clamp(max=CERTAIN)
    return certain - torch.log(-torch.expm1(certain))


def answer_log_probabilities(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Return [B] mean log-probabilities per token of `targets` [B, K] (-100: none) under `logits`
    [B, K, V].
    """
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=-100, reduction="none")
    return -losses.sum(dim=1) / (targets != -100).sum(dim=1)


def pair_loss(model: Any, batch: dict[str, "torch.Tensor"], odds_weight: float) -> "torch.Tensor":
    """Return ORPO's loss of a batch of `preference_pairs.collate`: one forward, scored where some
    row has an answer.
    """
    keep, targets = label_positions.labelled_positions(batch["answers"])
    features = {key: value for key, value in batch.items() if key != "answers"}
    if fused_head.fits(model, targets.numel()):
        means = answer_log_probabilities(model(**features, use_cache=False, logits_to_keep=keep).logits, targets)
    else:
        sums = fused_head.log_probs(model, features, batch["answers"]).sum(dim=1)
        means = sums / (targets != -100).sum(dim=1)
    chosen, rejected = means.chunk(2)
    return orpo_loss(chosen, rejected, odds_weight)


class PairLoss(TrainerBase):
    """Mixin before a `transformers.Trainer` over batches of `preference_pairs.collate`."""

    def __init__(self, *given: Any, odds_weight: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self.odds_weight = odds_weight

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: "torch.Tensor | None" = None,
    ) -> Any:
        """Return ORPO's loss."""
        loss = pair_loss(model, inputs, self.odds_weight)
        return (loss, {"loss": loss}) if return_outputs else loss


def build_trainer(settings: Params, model: Path, comparisons: list[Path], fingerprint: str) -> Any:
    """Return a plain transformers Trainer with ORPO's loss over tokenised pairs."""
    from transformers import Trainer, TrainingArguments, set_seed

    class OddsRatioTrainer(Resumable, merging.Merged, PairLoss, Trainer):
        """Trainer with atomic checkpoints and ORPO's loss."""

    arguments = fit_params.config(
        TrainingArguments,
        settings,
        "orpo",
        fingerprint,
        label_names=["answers"],
        remove_unused_columns=False,  # `length`, for train_sampling_strategy: group_by_length
    )
    set_seed(arguments.seed)
    tokenizer = models.load_tokenizer(model)
    policy = lora.base(model, settings, "orpo")
    models.check_context(policy.config, settings.max_tokens, "orpo.max_tokens")
    chat.end_with_turn(policy, tokenizer)
    train, validation = pair_dataset.both_splits(tokenizer, comparisons, settings)
    adapters = lora.with_new_tokens(settings.adapters("orpo"), policy, special_tokens.untrained(tokenizer), "orpo.lora")
    return OddsRatioTrainer(
        odds_weight=settings.odds_weight,
        keep_checkpoints=settings.keep_checkpoints,
        model=lora.wrap(fused_head.add(policy), adapters),
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=preference_pairs.collate,
        processing_class=tokenizer,
    )


if __name__ == "__main__":
    process.run("orpo", main)
