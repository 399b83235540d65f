"""Direct preference optimisation (Rafailov et al. 2023): prefer the better of two answers, near the
starting model.

Reads models/sft_best and comparisons, given by people or ranked in a round. Writes models/dpo and
its loss curve. Run: dvc repro dpo
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from stages.common.core import fused_head, left_out, models, params
from stages.common.finetuning import lora, merging
from stages.common.pairs import pair_dataset, preference_pairs, reference
from stages.common.runtime import process
from stages.common.training import fit, fit_params, kept_models
from stages.common.training.resumable import Resumable


class Params(preference_pairs.PairParams, lora.AdapterParams):
    """Section `dpo` of params.yaml. `training` goes to TRL's DPOConfig (`beta`, `loss_type`, …)."""


def main(
    model: Annotated[Path, typer.Option(help="folder of the model to start from; it is also the reference")],
    comparisons: Annotated[list[Path], typer.Option(help="ranked answers; may be given several times")],
    out: Annotated[Path, typer.Option(help="folder of the model")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
) -> None:
    """Teach the model which answers people prefer."""
    settings = params.load(Params, "dpo")
    inputs = preference_pairs.inputs(model=model, comparisons=comparisons)
    missing = left_out.allowed(folders=[out], tables={curve: kept_models.CURVE})
    with fit.start("dpo", settings, inputs) as (run, fingerprint), missing:
        trainer = build_trainer(settings, model, comparisons, fingerprint)
        kept = fit.fit(trainer, settings, run, "dpo")
        kept_models.publish(trainer, {"": kept[-1]}, out, curve, run, "dpo")


def build_trainer(settings: Params, model: Path, comparisons: list[Path], fingerprint: str) -> Any:
    """Return TRL's DPOTrainer over tokenised pairs; the reference reads every pair once, before the
    first step.
    """
    from trl import DPOConfig, DPOTrainer

    class PreferenceTrainer(Resumable, merging.Merged, reference.ReadOnce, DPOTrainer):
        """DPOTrainer with atomic checkpoints, over pairs that our own template has rendered."""

    # The column `length` stays in, for train_sampling_strategy: group_by_length.
    own: dict[str, Any] = {"max_length": None, "precompute_ref_log_probs": True, "remove_unused_columns": False}
    arguments = fit_params.config(DPOConfig, settings, "dpo", fingerprint, **own)
    tokenizer = models.load_tokenizer(model)
    policy = lora.base(model, settings, "dpo")
    models.check_context(policy.config, settings.max_tokens, "dpo.max_tokens")
    fused_head.bound_tiles(policy)
    train, validation = pair_dataset.both_splits(tokenizer, comparisons, settings)
    return PreferenceTrainer(
        keep_checkpoints=settings.keep_checkpoints,
        model=policy,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=lora.config(settings.lora, "dpo.lora"),
    )


if __name__ == "__main__":
    process.run("dpo", main)
