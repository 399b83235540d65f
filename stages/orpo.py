"""ORPO (Hong, Lee & Thorne 2024): learn to answer and to prefer in one training, from the base model, no reference.

Reads models/pretrain and comparisons, given by people or ranked in a round. Writes models/orpo and its loss curve.
Run: dvc repro orpo
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import NonNegativeFloat, PositiveInt

from stages.common.core import chat, checkpoints, models, params
from stages.common.finetuning import label_positions, lora
from stages.common.pairs import preference_pairs
from stages.common.runtime import process
from stages.common.tracking import session
from stages.common.training import fit

if TYPE_CHECKING:
    import torch

CERTAIN = -1e-7  # the log-probability above which 1 - p is no longer told from 0 in fp32


class Params(lora.AdapterParams):
    """Section `orpo` of params.yaml. `training` goes to transformers' TrainingArguments."""

    max_tokens: int = 256
    """Longest prompt with its answer; pairs with a longer one are left out, counted and reported."""
    pairs: preference_pairs.Which = "best"
    """Pairs made of K ranked answers: `best`, the best against each worse one; `all`, any two of different rank."""
    most_pairs: PositiveInt | None = None
    """Pairs of one comparison at most; null takes all of them. Which ones, a hash of the answers says."""
    odds_weight: NonNegativeFloat = 0.1
    """Weight of the odds-ratio term beside the likelihood of the better answer (the paper's lambda)."""


def main(
    model: Annotated[Path, typer.Option(help="folder of the base model")],
    comparisons: Annotated[list[Path], typer.Option(help="ranked answers; may be given several times")],
    out: Annotated[Path, typer.Option(help="folder of the model")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
) -> None:
    """Teach the base model to answer, and which answers people prefer."""
    settings = params.load(Params, "orpo")
    inputs = preference_pairs.inputs(model=model, comparisons=comparisons)
    sections = {"orpo": settings.model_dump()}
    fingerprint = checkpoints.fingerprint("orpo", sections, inputs)
    with session.start("orpo", params=sections, inputs=inputs, fingerprint=fingerprint) as run:
        trainer = build_trainer(settings, model, comparisons, fingerprint)
        kept = fit.fit(trainer, settings, run, "orpo")
        fit.publish(trainer, {"": kept[-1]}, out, curve, run, "orpo")


def orpo_loss(chosen: "torch.Tensor", rejected: "torch.Tensor", odds_weight: float) -> "torch.Tensor":
    """Return the mean over pairs of -log P(chosen) + odds_weight * -log sigmoid(log odds ratio) (paper, eq. 6 and 7).

    `chosen`, `rejected`: [B] mean log-probability per token of the two answers, eq. 3; odds = P / (1 - P), eq. 4.
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
    """Return [B] mean log-probabilities per token of `targets` [B, K] (-100: none) under `logits` [B, K, V]."""
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=-100, reduction="none")
    return -losses.sum(dim=1) / (targets != -100).sum(dim=1)


class PairLoss:
    """Mixin before a `transformers.Trainer` over batches of `collate`."""

    odds_weight: float

    def compute_loss(
        self: Any,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: "torch.Tensor | None" = None,
    ) -> Any:
        """Return ORPO's loss; chosen and rejected answers are one forward, scored where some row has an answer."""
        keep, targets = label_positions.labelled_positions(inputs["answers"])
        features = {key: value for key, value in inputs.items() if key != "answers"}
        logits = model(**features, use_cache=False, logits_to_keep=keep).logits
        chosen, rejected = answer_log_probabilities(logits, targets).chunk(2)
        loss = orpo_loss(chosen, rejected, self.odds_weight)
        return (loss, {"loss": loss}) if return_outputs else loss


def build_trainer(settings: Params, model: Path, comparisons: list[Path], fingerprint: str) -> Any:
    """Return a plain transformers Trainer with ORPO's loss over tokenised pairs."""
    from transformers import Trainer, TrainingArguments, set_seed

    class OddsRatioTrainer(fit.Resumable, lora.Merged, PairLoss, Trainer):
        """Trainer with atomic checkpoints and ORPO's loss."""

    arguments = fit.config(
        TrainingArguments,
        settings,
        "orpo",
        fingerprint,
        label_names=["answers"],
        remove_unused_columns=False,  # `length`, for train_sampling_strategy: group_by_length
    )
    set_seed(arguments.seed)
    tokenizer = models.load_tokenizer(model)
    policy = base_model(model, settings, tokenizer)
    models.check_context(policy.config, settings.max_tokens, "orpo.max_tokens")
    choice = preference_pairs.Choice(settings.pairs, settings.most_pairs)
    train, validation = preference_pairs.both_splits(tokenizer, comparisons, choice, settings.max_tokens)
    trainer = OddsRatioTrainer(
        model=lora.wrap(policy, lora.config(settings.lora, "orpo.lora")),
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=preference_pairs.collate,
        processing_class=tokenizer,
    )
    trainer.odds_weight = settings.odds_weight
    return trainer


def base_model(folder: Path, settings: Params, tokenizer: Any) -> Any:
    """Return the base model, told where an answer ends."""
    policy = lora.base(folder, settings, "orpo")
    policy.generation_config.eos_token_id = chat.end_of_turn(tokenizer)
    policy.generation_config.pad_token_id = tokenizer.pad_token_id
    return policy


if __name__ == "__main__":
    process.run("orpo", main)
