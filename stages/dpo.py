"""Direct preference optimisation (Rafailov et al. 2023): prefer the better of two answers, near the starting model.

Reads models/sft_best and comparisons, given by people or ranked in a round. Writes models/dpo and its loss curve.
Run: dvc repro dpo
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import PositiveInt

from stages.common.core import checkpoints, models, params
from stages.common.finetuning import lora
from stages.common.pairs import preference_pairs
from stages.common.runtime import process
from stages.common.tracking import session
from stages.common.training import fit


class Params(lora.AdapterParams):
    """Section `dpo` of params.yaml. `training` goes to TRL's DPOConfig (`beta`, `loss_type`, …)."""

    max_tokens: int = 256
    """Longest prompt with its answer; pairs with a longer one are left out, counted and reported."""
    pairs: preference_pairs.Which = "best"
    """Pairs made of K ranked answers: `best`, the best against each worse one; `all`, any two of different rank."""
    most_pairs: PositiveInt | None = None
    """Pairs of one comparison at most; null takes all of them. Which ones, a hash of the answers says."""


def main(
    model: Annotated[Path, typer.Option(help="folder of the model to start from; it is also the reference")],
    comparisons: Annotated[list[Path], typer.Option(help="ranked answers; may be given several times")],
    out: Annotated[Path, typer.Option(help="folder of the model")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
) -> None:
    """Teach the model which answers people prefer."""
    settings = params.load(Params, "dpo")
    inputs = preference_pairs.inputs(model=model, comparisons=comparisons)
    sections = {"dpo": settings.model_dump()}
    fingerprint = checkpoints.fingerprint("dpo", sections, inputs)
    with session.start("dpo", params=sections, inputs=inputs, fingerprint=fingerprint) as run:
        trainer = build_trainer(settings, model, comparisons, fingerprint)
        kept = fit.fit(trainer, settings, run, "dpo")
        fit.publish(trainer, {"": kept[-1]}, out, curve, run, "dpo")


def build_trainer(settings: Params, model: Path, comparisons: list[Path], fingerprint: str) -> Any:
    """Return TRL's DPOTrainer over tokenised pairs; the reference reads every pair once, before the first step."""
    from trl import DPOConfig, DPOTrainer

    class PreferenceTrainer(fit.Resumable, lora.Merged, DPOTrainer):
        """DPOTrainer with atomic checkpoints, over pairs that our own template has rendered."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            """Hand round what the reference reads by a file all processes find; TRL's folder is each one's own."""
            file = Path(self.args.output_dir) / f"reference-{name}.arrow"
            if self.args.should_save:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.unlink(missing_ok=True)
            self.accelerator.wait_for_everyone()
            dataset._get_cache_file_path = lambda _: str(file)
            return super()._precompute_ref_logps(dataset, name, batch_size)

    arguments = fit.config(
        DPOConfig,
        settings,
        "dpo",
        fingerprint,
        max_length=None,
        precompute_ref_log_probs=True,
        remove_unused_columns=False,  # `length`, for train_sampling_strategy: group_by_length
    )
    tokenizer = models.load_tokenizer(model)
    policy = lora.base(model, settings, "dpo")
    models.check_context(policy.config, settings.max_tokens, "dpo.max_tokens")
    choice = preference_pairs.Choice(settings.pairs, settings.most_pairs)
    train, validation = preference_pairs.both_splits(tokenizer, comparisons, choice, settings.max_tokens)
    return PreferenceTrainer(
        model=policy,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=lora.config(settings.lora, "dpo.lora"),
    )


if __name__ == "__main__":
    process.run("dpo", main)
