"""Reward model (InstructGPT, section 3.5): one number for an answer, learnt from K ranked answers
to a prompt at once.

Reads models/sft, comparisons (given by people or ranked in a round) and conversations, whose
answers score 0 in the mean. Writes models/reward/<round>, its loss curve, and a report on held-out
prompts. Run: dvc repro reward@r1
"""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from pydantic import NonNegativeFloat, PositiveInt

from stages.common.core import left_out, models, params
from stages.common.finetuning import lora, merging
from stages.common.generation import architecture
from stages.common.pairs import losses, pair_dataset, preference_pairs
from stages.common.reward import batches, calibration, ranked_answers, scoring, shared_prompt
from stages.common.reward import report as reward_report
from stages.common.runtime import process, ranks
from stages.common.training import fit, fit_params, kept_models
from stages.common.training.resumable import Resumable, TrainerBase

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("lathe")


class Params(lora.AdapterParams):
    """Section `reward` of params.yaml. `training` goes to transformers' TrainingArguments; a batch
    counts prompts.
    """

    heads: PositiveInt = 1
    """Heads on the one trunk, each with a start and a bootstrap sample of its own; the reward is
    their mean, in `ppo` and `grpo` less `heads_std_penalty` standard deviations.
    """
    max_tokens: PositiveInt = 256
    """Longest prompt with its answer; longer answers are left out, counted and reported."""
    share_prompt: bool = True
    """Read a prompt once for all its answers; refused for a model that then scores them otherwise
    than alone.
    """
    margin: NonNegativeFloat = 0.0
    """By how much the better answer is to score higher."""
    centre: NonNegativeFloat = 0.0
    """Weight of the squared sum of a pair's scores, which keeps them near 0 while training."""
    demonstrations: PositiveInt = 1000
    """Conversations, the first of the training split, whose last answers score 0 on average."""


class Data(NamedTuple):
    """Comparisons as token rows, and what was left out of each split, by reason."""

    train: "Dataset"
    validation: "Dataset"
    counts: dict[str, Counter[str]]


def main(
    model: Annotated[Path, typer.Option(help="folder of the fine-tuned model to start from")],
    comparisons: Annotated[list[Path], typer.Option(help="ranked answers; may be given several times")],
    conversations: Annotated[Path, typer.Option(help="validated conversations: their answers score 0 on average")],
    out: Annotated[Path, typer.Option(help="folder of the reward model")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
    report: Annotated[Path, typer.Option(help="JSON report on held-out prompts")],
) -> None:
    """Teach a model which answers people rank higher."""
    settings = params.load(Params, "reward")
    inputs = preference_pairs.inputs(model=model, comparisons=comparisons, conversations=conversations)
    missing = left_out.allowed(folders=[out], tables={curve: kept_models.CURVE}, reports=[report])
    with fit.start("reward", settings, inputs) as (run, fingerprint), missing:
        data = read(settings, models.load_tokenizer(model), comparisons)
        trainer = build_trainer(settings, model, data, fingerprint)
        kept = fit.fit(trainer, settings, run, "reward")
        ranks.once(lambda: kept_models.publish(trainer, {"": kept[-1]}, out, curve, run, "reward"))
        tokenizer = models.load_tokenizer(model)
        answers = calibration.tokenise(tokenizer, conversations, settings.demonstrations, settings.max_tokens)
        centred = shift(out, answers)
        scored, heads = reward_report.score(out, data.validation)
        if process.is_main_process():
            reward_report.write(report, scored, data.counts | {"demonstrations": centred}, run, heads)


class KwiseLoss(TrainerBase):
    """Mixin before a `transformers.Trainer` over batches of `batches.Collator`, or of
    `shared_prompt`'s.
    """

    def __init__(self, *given: Any, settings: Params, **named: Any) -> None:
        super().__init__(*given, **named)
        self.settings = settings

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: "torch.Tensor | None" = None,
    ) -> Any:
        """Return the K-wise loss; every answer is read once. No mask: tokens never see padding to
        their right.
        """
        head = architecture.inner(self.accelerator.unwrap_model(model)).get_submodule("score")
        read = shared_prompt.scores if self.settings.share_prompt else scoring.last_scores
        scores = read(model, head, inputs)
        weight = inputs["weight"]
        if "draws" in inputs:  # [P, K]: the mean over the heads, each with its sample while it learns
            drawn = inputs["draws"]
            weight = weight[:, None] * (drawn if model.training else drawn.new_ones(drawn.shape)) / drawn.shape[1]
        pairs = (inputs["better"], inputs["worse"], weight)
        loss = losses.kwise_loss(scores, *pairs, margin=self.settings.margin, centre=self.settings.centre)
        return (loss, {"loss": loss}) if return_outputs else loss


def read(settings: Params, tokenizer: "PreTrainedTokenizerBase", comparisons: list[Path]) -> Data:
    """Return both splits of all folders; a prompt that one folder holds out is trained on
    in none.
    """
    held_out = pair_dataset.held_out(comparisons)
    validation, passed_over = ranked_answers.tokenise(tokenizer, comparisons, "validation", settings.max_tokens)
    train, counts = ranked_answers.tokenise(tokenizer, comparisons, "train", settings.max_tokens, held_out)
    return Data(train, validation, {"train": counts, "validation": passed_over})


def build_trainer(settings: Params, model: Path, data: Data, fingerprint: str) -> Any:
    """Return a plain transformers Trainer with the K-wise loss. Raises ParamsError for answers
    beyond the context.
    """
    from transformers import Trainer, TrainingArguments, set_seed

    class RewardTrainer(Resumable, merging.Merged, KwiseLoss, Trainer):
        """Trainer with atomic checkpoints and the K-wise loss."""

    arguments = fit_params.config(
        TrainingArguments,
        settings,
        "reward",
        fingerprint,
        label_names=["better"],
        remove_unused_columns=False,  # `length`, for train_sampling_strategy: group_by_length
    )
    set_seed(arguments.seed)
    tokenizer = models.load_tokenizer(model)
    scorer = lora.prepared(
        scoring.begin(model, tokenizer, settings.heads, **lora.loading(model, settings, "reward")), settings
    )
    models.check_context(scorer.config, settings.max_tokens, "reward.max_tokens")
    collator: Any = batches.Collator(tokenizer.pad_token_id, settings.heads)
    train = data.train
    some = ranked_answers.first_and_longest(train, scoring.CHECKED)
    if settings.share_prompt:
        shared_prompt.check(scorer, some, tokenizer.pad_token_id, "reward.share_prompt")
        collator = shared_prompt.Collator(tokenizer.pad_token_id, settings.heads)
        train = train.remove_columns("length").rename_column("width", "length")
    else:
        scoring.check(scorer, some, tokenizer.pad_token_id, "reward.max_tokens")
    return RewardTrainer(
        settings=settings,
        keep_checkpoints=settings.keep_checkpoints,
        model=lora.wrap(scorer, lora.config(settings.lora, "reward.lora", "SEQ_CLS")),
        args=arguments,
        train_dataset=train,
        eval_dataset=data.validation,
        data_collator=collator,
        processing_class=tokenizer,
    )


def shift(folder: Path, rows: list[list[int]]) -> dict[str, float]:
    """Write the mean score of `rows` to the model's config.json as `reward_offset`, of several
    heads each one's; return it, with what it is of.
    """
    scores = scoring.head_rows(scoring.load(folder), rows, shared=True)
    means = [sum(head) / len(head) for head in zip(*scores, strict=True)]
    offset: float | list[float] = means[0] if len(means) == 1 else means
    config = folder / "config.json"

    def write() -> None:
        known = json.loads(config.read_text(encoding="utf-8")) | {"reward_offset": offset}
        config.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    ranks.once(write)
    return {"count": len(scores), "mean_before_shift": float(f"{sum(means) / len(means):.6g}")}


if __name__ == "__main__":
    process.run("reward", main)
