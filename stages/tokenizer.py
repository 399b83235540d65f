"""Train a byte-level BPE on the training documents, or copy the base model's tokenizer; add the
chat template.

Reads data/validated/documents. Writes models/tokenizer. Run: dvc repro tokenizer
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.common.core import chat, models, params, records
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError
from stages.common.tracking import session

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Params(params.StageParams):
    """Section `tokenizer` of params.yaml."""

    base: str | None = None
    """Folder or hub name of the model whose tokenizer is copied; null trains one."""
    vocab_size: int = 4096
    """Entries of a trained vocabulary, special tokens and the 256 bytes included."""
    chat_template: str = "chatml"
    """A file in stages/templates, without `.jinja`."""


def main(
    documents: Annotated[Path, typer.Option(help="validated documents")],
    out: Annotated[Path, typer.Option(help="folder of the tokenizer")],
) -> None:
    """Make the tokenizer every later stage uses."""
    settings = params.load(Params, "tokenizer")
    with session.start(
        "tokenizer", params={"tokenizer": settings.model_dump()}, inputs={"documents": documents}
    ) as run:
        if settings.base:
            tokenizer = models.load_tokenizer(settings.base)
        else:
            tokenizer = train((row["text"] for row in records.read(documents / "train")), settings.vocab_size)
        tokenizer = with_template(tokenizer, settings.chat_template)
        tokenizer.save_pretrained(out)
        efficiency = characters_per_token(tokenizer, documents / "validation")
        run.metrics({"vocabulary": float(len(tokenizer)), "characters_per_token": efficiency})
    logs.report(f"{len(tokenizer):,} tokens, {efficiency:.2f} characters per token")


def train(texts: Iterator[str], vocab_size: int) -> "PreTrainedTokenizerBase":
    """Return a byte-level BPE (GPT-2, section 2.2).

    Digits stand alone so that sums can be learnt, and so do Han characters: Chinese has no spaces,
    and a merge over word borders would hide a name in as many tokens as there are words beside it.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(chat.SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=chat.END_OF_DOCUMENT,
        eos_token=chat.END_OF_TURN,
        clean_up_tokenization_spaces=False,
    )


def with_template(tokenizer: "PreTrainedTokenizerBase", template: str) -> "PreTrainedTokenizerBase":
    """Return the tokenizer with the special tokens it lacks and a chat template that carries
    generation marks.
    """
    known = tokenizer.get_vocab()
    missing = [token for token in chat.SPECIAL_TOKENS if token not in known]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing})
    tokenizer.chat_template = chat.template(template)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = chat.END_OF_DOCUMENT
    return tokenizer


def characters_per_token(tokenizer: "PreTrainedTokenizerBase", documents: Path) -> float:
    """Return the compression on held-out documents, in characters per token."""
    characters = tokens = 0
    for row in records.read(documents):
        characters += len(row["text"])
        tokens += len(tokenizer(row["text"])["input_ids"])
    if not tokens:
        raise DataError("no held-out text", where=documents, remedy="add documents to data/raw")
    return characters / tokens


if __name__ == "__main__":
    process.run("tokenizer", main)
