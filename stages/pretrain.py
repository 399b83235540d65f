"""Train the base model on packed blocks of text: from random weights, or on from a base model
(continued pretraining).

Reads models/tokenizer and data/validated/documents. Writes models/pretrain and its loss curve. Run:
dvc repro pretrain
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.common.core import models, params, records
from stages.common.runtime import process
from stages.common.training import fit, fit_params, kept_models, packed_blocks
from stages.common.training.resumable import Resumable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
    block_tokens: int = 256
    """Tokens of one training block; documents are joined by <|endoftext|> and cut into blocks."""


def main(
    tokenizer: Annotated[Path, typer.Option(help="folder of the tokenizer")],
    documents: Annotated[Path, typer.Option(help="validated documents")],
    out: Annotated[Path, typer.Option(help="folder of the base model")],
    curve: Annotated[Path, typer.Option(help="CSV of the loss curve")],
) -> None:
    """Train a causal language model on documents."""
    settings = params.load(Params, "pretrain")
    inputs = {"tokenizer": tokenizer, "documents": documents}
    with fit.start("pretrain", settings, inputs) as (run, fingerprint):
        trainer = build_trainer(settings, models.load_tokenizer(tokenizer), documents, fingerprint)
        kept = fit.fit(trainer, settings, run, "pretrain")
        kept_models.publish(trainer, {"": kept[-1]}, out, curve, run, "pretrain")


def build_trainer(settings: Params, tokenizer: "PreTrainedTokenizerBase", documents: Path, fingerprint: str) -> Any:
    """Return a plain transformers Trainer on packed blocks (TRL's computes entropy over full logits
    at every step).
    """
    from transformers import Trainer, TrainingArguments, default_data_collator, set_seed

    class PretrainTrainer(Resumable, Trainer):
        """Trainer with atomic checkpoints."""

    arguments = fit_params.config(TrainingArguments, settings, "pretrain", fingerprint)
    folder = Path(arguments.output_dir)
    blocks = {
        split: packed_blocks.documents(tokenizer, documents / split, settings.block_tokens, folder)
        for split in records.SPLITS
    }
    set_seed(arguments.seed)
    return PretrainTrainer(
        keep_checkpoints=settings.keep_checkpoints,
        model=base_model(settings, tokenizer),
        args=arguments,
        train_dataset=blocks["train"],
        eval_dataset=blocks["validation"],
        data_collator=default_data_collator,
        processing_class=tokenizer,
    )


def base_model(settings: Params, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Return the model to train; its embeddings grow if the tokenizer has more entries."""
    if not settings.base:
        return models.build(settings.model, len(tokenizer), "pretrain.model")
    model = models.load(settings.base)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    return model


if __name__ == "__main__":
    process.run("pretrain", main)
