"""Train a byte-level BPE on the training documents, or copy the base model's tokenizer; add the
chat template.

Reads data/validated/documents. Writes models/tokenizer. Run: dvc repro tokenizer
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import model_validator

from stages.common.core import chat, models, params, records, special_tokens, templates
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.tracking import session

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEEP, CHATML = "keep", "chatml"
MARKS = re.compile(r"<\|[^|<>\s]+(?: [^|<>\s]+)?\|>|<eo[a-z]>")
"""How the templates of stages/templates, and most others, write special tokens; `<eom>` and
`<|Inner Thoughts|>` are MOSS's.
"""


class Params(params.StageParams):
    """Section `tokenizer` of params.yaml."""

    base: str | None = None
    """Folder or hub name of the model whose tokenizer is copied; null trains one."""
    vocab_size: int = 4096
    """Entries of a trained vocabulary, special tokens and the 256 bytes included."""
    chat_template: str | None = None
    """`keep` for the base's own, a file of stages/templates without `.jinja`, or the path of
    another .jinja file.

    null keeps the base's own where it has one, and is chatml otherwise. A file elsewhere is no
    dependency of the stage.
    """

    @model_validator(mode="after")
    def _something_to_keep(self) -> "Params":
        if self.chat_template == KEEP and not self.base:
            raise ValueError("a tokenizer that is trained has no chat template to keep: set base too, or chatml")
        return self


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
            tokenizer = copied(settings.base, settings.chat_template)
        else:
            template = settings.chat_template or CHATML
            templates.read(template)  # before the training: it may not be there
            texts = (row["text"] for row in records.read(documents / "train"))
            tokenizer = with_template(train(texts, settings.vocab_size), template)
        tokenizer.save_pretrained(out)
        figures, said = {"vocabulary": float(len(tokenizer))}, f"{len(tokenizer):,} tokens"
        if not settings.base or any(records.read(documents / "validation")):  # a base needs no documents
            efficiency = figures["characters_per_token"] = characters_per_token(tokenizer, documents / "validation")
            said += f", {efficiency:.2f} characters per token"
        run.metrics(figures)
    logs.report(said, figures)


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


def copied(base: str, template: str | None) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of the model `base`, which remembers by which tokens that model ends
    what it says.
    """
    tokenizer = models.load_tokenizer(base)
    ends = [tokenizer.convert_ids_to_tokens(token) for token in ends_of(base) if token < len(tokenizer)]
    return with_template(tokenizer, template or (KEEP if tokenizer.chat_template else CHATML), ends)


def ends_of(base: str) -> list[int]:
    """Return the ids that end what a model says, by its generation config or else its config; []
    for none.
    """
    from transformers import AutoConfig, GenerationConfig

    for kind in (GenerationConfig, AutoConfig):
        try:
            ends = getattr(kind.from_pretrained(base), "eos_token_id", None)
        except (OSError, ValueError):  # a folder that holds a tokenizer alone
            continue
        if ends is not None:
            return list(ends) if isinstance(ends, list) else [ends]
    return []


def with_template(
    tokenizer: "PreTrainedTokenizerBase", template: str, ends: list[str] | None = None
) -> "PreTrainedTokenizerBase":
    """Return the tokenizer with a chat template, the special tokens which that writes, and one to
    pad with.

    `ends` are the tokens that end what a base says. Raises DataError where the template does not
    tell what the assistant says: nothing could be learnt by it.
    """
    new: list[str] = []
    if template != KEEP:
        tokenizer.chat_template = templates.read(template)
        known = tokenizer.get_vocab()
        new = [token for token in dict.fromkeys(MARKS.findall(tokenizer.chat_template)) if token not in known]
        tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    elif not tokenizer.chat_template:
        raise ParamsError("'tokenizer.chat_template' is keep, and the tokenizer has none", where=params.PARAMS_FILE)
    if ends is not None or new:
        tokenizer.init_kwargs[chat.OF_BASE] = {"ends": ends or [], "new": new, "kept": template == KEEP}
    chat.check(tokenizer)
    special_tokens.set_padding(tokenizer)
    return tokenizer


def characters_per_token(tokenizer: "PreTrainedTokenizerBase", documents: Path) -> float:
    """Return the compression on held-out documents, in characters per token."""
    characters = tokens = 0
    for row in records.read(documents):
        characters += len(row["text"])
        tokens += len(tokenizer(row["text"], add_special_tokens=False)["input_ids"])
    if not tokens:
        raise DataError("no held-out text", where=documents, remedy="add documents to data/raw")
    return characters / tokens


if __name__ == "__main__":
    process.run("tokenizer", main)
