"""Text as equal blocks of tokens on disk: memory stays flat however long the corpus is."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import chat, records
from stages.common.runtime.errors import DataError
from stages.common.training import token_cache

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("lathe")


class Blocks:
    """Blocks of `block_tokens` token ids in a file of uint32, mapped into memory; a torch map-style
    data set.
    """

    def __init__(self, path: Path, block_tokens: int) -> None:
        import numpy

        tokens = numpy.memmap(path, dtype=numpy.uint32, mode="r")
        self.array = tokens[: len(tokens) // block_tokens * block_tokens].reshape(-1, block_tokens)

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.array)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return {input_ids, labels}, both [block_tokens] int64; the model shifts labels itself."""
        import torch

        ids = torch.from_numpy(self.array[index].astype("int64"))
        return {"input_ids": ids, "labels": ids.clone()}


class Mixed:
    """Blocks of two sources as one data set: every block of `text`, and so many of `talk`, in turn
    and again where they are few, that they are `share` of all.
    """

    def __init__(self, text: Blocks, talk: Blocks, share: float) -> None:
        self.text, self.talk = text, talk
        self.talks = round(len(text) * share / (1 - share))

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.text) + self.talks

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a block as `Blocks` does."""
        if index < len(self.text):
            return self.text[index]
        return self.talk[(index - len(self.text)) % len(self.talk)]


def documents(tokenizer: "PreTrainedTokenizerBase", split: Path, block_tokens: int) -> Blocks:
    """Return the documents of a split, each with its end, as blocks; the rest shorter than a block
    is left out. Raises DataError when there is less than one block.
    """
    return _blocks(partial(token_ids, tokenizer), split, block_tokens)


def conversations(tokenizer: "PreTrainedTokenizerBase", split: Path, block_tokens: int) -> Blocks:
    """Return the conversations of a split, whole as the chat template writes them, each with the
    end of a document, as blocks. Raises DataError as `documents` does.
    """
    return _blocks(partial(conversation_ids, tokenizer), split, block_tokens)


def _blocks(rows: "partial[Iterator[list[int]]]", split: Path, block_tokens: int) -> Blocks:
    file = token_cache.tokens(rows, [split])
    size = file.stat().st_size // 4
    if size < block_tokens:
        what = f"only {size} tokens, less than one block of {block_tokens}"
        raise DataError(what, where=split, remedy="add text to data/raw or lower pretrain.block_tokens")
    blocks = Blocks(file, block_tokens)
    log.info("%s: %s blocks of %d tokens", split.name, f"{len(blocks):,}", block_tokens)
    return blocks


def token_ids(
    tokenizer: "PreTrainedTokenizerBase", rows: Iterable[records.Record], counts: Counter[str]
) -> Iterator[list[int]]:
    """Yield the tokens of documents, each with its end; count the documents."""
    end = chat.end_of_document(tokenizer)
    for batch in token_cache.batched((row["text"] for row in rows), 1_000):
        counts["documents"] += len(batch)
        for ids in chat.encode_texts(tokenizer, batch):
            yield [*ids, end]


def conversation_ids(
    tokenizer: "PreTrainedTokenizerBase", rows: Iterable[records.Record], counts: Counter[str]
) -> Iterator[list[int]]:
    """Yield the tokens of conversations, each with the end of a document; count them."""
    end = chat.end_of_document(tokenizer)
    for row in rows:
        counts["conversations"] += 1
        yield [*chat.encode(tokenizer, row["messages"], row["tools"]).input_ids, end]
