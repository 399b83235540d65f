"""Train the base model on packed blocks of text: from random weights, or on from a base model
(continued pretraining).

Reads models/tokenizer and data/validated/documents, unless the base model is handed on as it is
(`pretrain.skip`). Writes models/pretrain and its loss curve. Run: dvc repro pretrain
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import model_validator

from stages.common.core import fused_head, models, params, precision, records
from stages.common.core.sparse import pattern
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError
from stages.common.tracking import session
from stages.common.training import fit, fit_params, kept_models, packed_blocks
from stages.common.training.resumable import Resumable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages.common.tracking.run import Run


class Params(fit_params.FitParams):
    """Section `pretrain` of params.yaml."""

    base: str | None = None
    """Folder or hub name of the model to continue from; null starts from random weights of the
    shape `model`.
    """
    model: dict[str, Any] = {}
    """transformers' config of the new model (model_type, hidden_size, …); vocab_size comes from the
    tokenizer.
    """
    attention: pattern.Attention = pattern.Attention()
    """What a token sees. Dense, a new model is dense and a base model stays as it is."""
    block_tokens: int = 256
    """Tokens of one training block; documents, each with its end, are joined and cut into
    blocks.
    """
    pad_to_multiple_of: int | None = 64
    """Embeddings that grow with new tokens grow to a multiple of this: GPUs multiply such matrices
    faster.
    """
    skip: bool = False
    """Hand `base` on as it is, in its own dtype, and read no document; so does
    `training.num_train_epochs: 0`.
    """

    @property
    def skipped(self) -> bool:
        """Whether nothing is trained."""
        steps, epochs = self.training.get("max_steps") or -1, self.training.get("num_train_epochs", 3)
        return self.skip or (epochs == 0 and steps <= 0)

    @model_validator(mode="after")
    def _base_where_skipped(self) -> "Params":
        if self.skipped and not self.base:
            raise ValueError("without training there is nothing to hand on: set base too")
        return self


def main(
    tokenizer: Annotated[Path, typer.Option(help="folder of the tokenizer")],
    documents: Annotated[Path, typer.Option(help="validated documents")],
    out: Annotated[Path, typer.Option(help="folder of the base model")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
) -> None:
    """Train a causal language model on documents."""
    settings = params.load(Params, "pretrain")
    base = {"base": Path(settings.base)} if settings.base and Path(settings.base).is_dir() else {}
    if settings.skipped:
        with session.start("pretrain", params={"pretrain": settings.model_dump()}, inputs=base) as run:
            hand_on(settings, tokenizer, out, curve, run)
        return
    inputs = {"tokenizer": tokenizer, "documents": documents} | base
    with fit.start("pretrain", settings, inputs) as (run, fingerprint):
        trainer = build_trainer(settings, models.load_tokenizer(tokenizer), documents, fingerprint)
        kept = fit.fit(trainer, settings, run, "pretrain")
        kept_models.publish(trainer, {"": kept[-1]}, out, curve, run, "pretrain")


def hand_on(settings: Params, tokenizer: Path, out: Path, curve: Path, run: "Run") -> None:
    """Write the base model with our tokenizer, in its own dtype, and a curve without a step."""
    if not process.is_main_process():
        return
    from transformers import set_seed

    assert settings.base
    set_seed(int(settings.training.get("seed", 42)))  # rows of new tokens are drawn
    ours, dtype = models.load_tokenizer(tokenizer), precision.stored(settings.base)
    models.save(base_model(settings, ours, dtype), ours, out)
    kept_models.write_curve([], curve)
    run.checkpoint("pretrain-base", out, 0, {}, models.weights_sha256(out))
    logs.report(f"{settings.base} as it is, in {str(dtype).removeprefix('torch.')}")


def build_trainer(settings: Params, tokenizer: "PreTrainedTokenizerBase", documents: Path, fingerprint: str) -> Any:
    """Return a plain transformers Trainer on packed blocks (TRL's computes entropy over full logits
    at every step).
    """
    from transformers import Trainer, TrainingArguments, default_data_collator, set_seed

    class PretrainTrainer(Resumable, Trainer):
        """Trainer with atomic checkpoints, and a head that goes over many logits in tiles."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
            few = fused_head.fits(model, inputs["labels"].numel())
            return super().compute_loss(model, inputs if few else inputs | {"fused_lm_head": True}, *rest, **named)

    arguments = fit_params.config(TrainingArguments, settings, "pretrain", fingerprint)
    set_seed(arguments.seed)
    dtype = settings.held_dtype(settings.base or "")
    model = base_model(settings, tokenizer, dtype)  # before the documents are read: it may be refused
    blocks = {
        split: packed_blocks.documents(tokenizer, documents / split, settings.block_tokens) for split in records.SPLITS
    }
    return PretrainTrainer(
        keep_checkpoints=settings.keep_checkpoints,
        model=fused_head.add(model),
        args=arguments,
        train_dataset=blocks["train"],
        eval_dataset=blocks["validation"],
        data_collator=default_data_collator,
        processing_class=tokenizer,
    )


def check_vocabulary(base: str, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise DataError unless the model `base` has the tokenizer's vocabulary; tokens may have been
    added to that.
    """
    own, given = models.load_tokenizer(base).get_vocab(), tokenizer.get_vocab()
    other = sorted(token for token, number in own.items() if given.get(token) != number)
    foreign = sorted(set(given) - set(own) - set(tokenizer.get_added_vocab()))
    if other or foreign:
        what = f"its vocabulary of {len(own):,} tokens is not that of models/tokenizer ({len(given):,})"
        one = (other or foreign)[0]
        what = f"{what}: {one!r} is {own.get(one)} here, {given.get(one)} there"
        raise DataError(what, where=base, remedy="set tokenizer.base and pretrain.base to one model")


def base_model(settings: Params, tokenizer: "PreTrainedTokenizerBase", dtype: Any = None) -> "PreTrainedModel":
    """Return the model to train, or to hand on in `dtype`; its embeddings grow if the tokenizer has
    more entries.
    """
    if not settings.base:
        return sparse(models.build(settings.model, len(tokenizer), "pretrain.model").to(dtype), settings)
    check_vocabulary(settings.base, tokenizer)
    model = models.load(settings.base, dtype)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=settings.pad_to_multiple_of)
    return sparse(model, settings)


def sparse(model: "PreTrainedModel", settings: Params) -> "PreTrainedModel":
    """Return the model with the attention that the params ask for. Raises ParamsError for one that
    has other attention, or is to be compiled.
    """
    if chosen := settings.attention.sparse():
        from stages.common.core.sparse import attention

        attention.enable(model, chosen, "pretrain.attention")
    pattern.refuse_compiled(model.config, settings.training, "pretrain")
    return model


if __name__ == "__main__":
    process.run("pretrain", main)
