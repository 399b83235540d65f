"""KTO (Ethayarajh et al. 2024): learn from answers that were liked or not, one by one, near the
starting model.

Reads models/sft_best and labelled answers, comparisons, or both. Writes models/kto and its loss
curve. Run: dvc repro kto
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.common.core import fused_head, left_out, models, params
from stages.common.finetuning import lora, merging
from stages.common.pairs import labelled_answers, preference_pairs, reference
from stages.common.runtime import process
from stages.common.runtime.errors import ParamsError
from stages.common.training import dropout, fit, fit_params, kept_models
from stages.common.training.resumable import Resumable, TrainerBase

if TYPE_CHECKING:
    from datasets import Dataset

WEIGHTS = ("desirable_weight", "undesirable_weight")
log = logging.getLogger("lathe")


class Params(labelled_answers.AnswerParams, lora.AdapterParams):
    """Section `kto` of params.yaml. `training` goes to TRL's KTOConfig (`beta`, `loss_type`, …);
    without weights in it they follow from the numbers of liked and disliked answers.
    """

    skip: bool = False
    """Whether this candidate is left out."""


def main(
    model: Annotated[Path, typer.Option(help="folder of the model to start from; it is also the reference")],
    labelled: Annotated[Path, typer.Option(help="answers that were liked or not")],
    comparisons: Annotated[list[Path], typer.Option(help="ranked answers; may be given several times")],
    out: Annotated[Path, typer.Option(help="folder of the model")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
) -> None:
    """Teach the model to answer as was liked, and not as was disliked."""
    settings = params.load(Params, "kto")
    if settings.skip:
        return left_out.skip("kto.skip is true", [out], {curve: kept_models.CURVE}, [])
    answers = settings.folders(labelled, comparisons)
    inputs = preference_pairs.inputs(model=model, answers=answers)
    missing = left_out.allowed(folders=[out], tables={curve: kept_models.CURVE})
    with fit.start("kto", settings, inputs) as (run, fingerprint), missing:
        trainer = build_trainer(settings, model, answers, fingerprint)
        run.metrics(trainer.balance)
        kept = fit.fit(trainer, settings, run, "kto")
        kept_models.publish(trainer, {"": kept[-1]}, out, curve, run, "kto")


class Balanced(TrainerBase):
    """Mixin before TRL's KTOTrainer: weights by what there is, other prompts' answers by the whole
    data, and a new order each epoch. TRL's pairs within a batch, which have to stay together.
    """

    if TYPE_CHECKING:
        train_dataset: Dataset
        calculate_KL: bool

    def __init__(self, *given: Any, balance: dict[str, float], **named: Any) -> None:
        super().__init__(*given, **named)
        self.balance = balance
        self.desirable_weight, self.undesirable_weight = (balance[name] for name in WEIGHTS)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return labelled_answers.mismatched(dataset) if self.calculate_KL else dataset

    def _get_train_sampler(self, *_: Any) -> Any:
        from torch.utils.data import RandomSampler

        return RandomSampler(self.train_dataset)


def balance(training: Mapping[str, Any], liked: int, disliked: int) -> dict[str, float]:
    """Return the numbers of answers and their weights: those given in `training`, else derived."""
    given = any(name in training for name in WEIGHTS)
    derived = dict(zip(WEIGHTS, labelled_answers.weights(liked, disliked), strict=True))
    found = {name: float(training.get(name, 1.0)) for name in WEIGHTS} if given else derived
    ratio = found[WEIGHTS[0]] * liked / (found[WEIGHTS[1]] * disliked)
    told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    log.info("%s, %s, so that liked weigh %.3f times disliked", told, "as given" if given else "derived", ratio)
    if not 1 - 1e-6 <= ratio <= labelled_answers.MOST_LIKED + 1e-6:
        log.warning("liked to disliked answers by their weights are %.3g, outside of 1 to 4/3", ratio)
    return {"liked": liked, "disliked": disliked} | found


def build_trainer(settings: Params, model: Path, answers: list[Path], fingerprint: str) -> Any:
    """Return TRL's KTOTrainer over tokenised answers; the reference reads each once, with its own
    prompt and with another, before the first step.

    Raises ParamsError for batches too small to measure the reference point in.
    """
    from trl import KTOConfig, KTOTrainer

    class LikesTrainer(Balanced, Resumable, merging.Merged, reference.ReadOnce, KTOTrainer):
        """KTOTrainer with atomic checkpoints, over answers that our own template has rendered."""

    # An answer beside another prompt may be longer than both were: it is cut at max_length.
    own: dict[str, Any] = {"max_length": settings.max_tokens, "precompute_ref_log_probs": True}
    arguments = fit_params.config(KTOConfig, settings, "kto", fingerprint, remove_unused_columns=False, **own)
    if arguments.loss_type == "kto" and arguments.per_device_train_batch_size < 2:
        what = "'kto.training.per_device_train_batch_size' is 1: the mean of KTO's reference point needs more"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy="set 2 or more, or loss_type: apo_zero_unpaired")
    tokenizer = models.load_tokenizer(model)
    policy = lora.base(model, settings, "kto")
    models.check_context(policy.config, settings.max_tokens, "kto.max_tokens")
    fused_head.bound_tiles(policy)
    train, validation = labelled_answers.both_splits(tokenizer, answers, settings)
    made = LikesTrainer(
        balance=balance(settings.training, *labelled_answers.counted(train)),
        keep_checkpoints=settings.keep_checkpoints,
        model=policy,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=lora.config(settings.lora, "kto.lora"),
    )
    if arguments.disable_dropout:
        dropout.switch_off(made.model)  # TRL leaves the share that attention has
    return made


if __name__ == "__main__":
    process.run("kto", main)
