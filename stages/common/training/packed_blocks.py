"""Text as equal blocks of tokens on disk: memory stays flat however long the corpus is."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stages.common.core import chat, records
from stages.common.runtime import locks, process
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
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


def write(sequences: Iterable[list[int]], path: Path, block_tokens: int, *, where: Path) -> Blocks:
    """Write token sequences end to end and return them as blocks; the rest shorter than a block is
    left out.

    Every rank maps one file: rank 0 writes it aside and renames it, the others wait. Raises
    DataError when there is less than one block, naming `where` the text came from.
    """
    import numpy
    from accelerate import PartialState

    with PartialState().main_process_first():
        if process.is_main_process():
            temporary = path.with_suffix(".writing")
            with locks.exclusive(path.with_suffix(".lock")), temporary.open("wb") as handle:
                for sequence in sequences:
                    numpy.asarray(sequence, dtype=numpy.uint32).tofile(handle)
                handle.flush()
                temporary.rename(path)
    size = path.stat().st_size // 4
    if size < block_tokens:
        what = f"only {size} tokens, less than one block of {block_tokens}"
        raise DataError(what, where=where, remedy="add text to data/raw or lower pretrain.block_tokens")
    return Blocks(path, block_tokens)


def documents(tokenizer: "PreTrainedTokenizerBase", split: Path, block_tokens: int, folder: Path) -> Blocks:
    """Return the documents of a split, each with its end, as blocks in a file of `folder` named
    after the split.
    """
    end = chat.end_of_document(tokenizer)

    def tokens() -> Iterator[list[int]]:
        for batch in batched((row["text"] for row in records.read(split)), 1_000):
            for ids in chat.encode_texts(tokenizer, batch):
                yield [*ids, end]

    blocks = write(tokens(), folder / f"{split.name}.bin", block_tokens, where=split)
    log.info("%s: %s blocks of %d tokens", split.name, f"{len(blocks):,}", block_tokens)
    return blocks


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of up to `size` items."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
