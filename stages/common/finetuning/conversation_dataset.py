"""Conversations as rows of tokens with labels on the assistant's tokens, and what is done with
those too long.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from stages.common.core import chat, records
from stages.common.runtime.errors import DataError
from stages.common.training import token_cache

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("lathe")
TooLong = Literal["drop", "truncate_left", "split_turns"]
Row = dict[str, Any]
NONE = -100
"""The label of a token that no loss is taken on."""
IDS = pa.list_(pa.int32())
SCHEMA = pa.schema([("input_ids", IDS), ("labels", IDS)])
PACKED = SCHEMA.append(pa.field("seq_lengths", IDS))
WINDOW = 1_000
"""Conversations among which those that fill a row best are looked for."""
OUTCOMES = {"drop": "left out", "truncate_left": "cut on their left", "split_turns": "split"}


def tokenise(
    tokenizer: "PreTrainedTokenizerBase",
    split: Path,
    max_tokens: int,
    too_long: TooLong = "drop",
    *,
    packed: bool = False,
) -> "Dataset":
    """Return {input_ids, labels} of the conversations in `split`, none longer than `max_tokens`,
    mapped into memory.

    `packed` puts several into a row, see `packed_rows`. Longer ones are counted and logged, with
    what `too_long` makes of them. Raises DataError when no row is left.
    """
    make, schema = (packed_rows, PACKED) if packed else (rows, SCHEMA)
    data, counts = token_cache.dataset(partial(make, tokenizer, max_tokens, too_long), schema, [split])
    kept = counts["packed"] if packed else len(data)
    line = summary(kept, counts, max_tokens, too_long)
    log.info("%s: %s%s", split.name, line, f", packed into {len(data):,} rows" if packed else "")
    if not len(data):
        raise DataError(f"no conversation of at most {max_tokens} tokens", where=split, remedy="raise sft.max_tokens")
    return data


def rows(
    tokenizer: "PreTrainedTokenizerBase",
    max_tokens: int,
    too_long: TooLong,
    conversations: Iterable[records.Record],
    counts: Counter[str],
) -> Iterator[Row]:
    """Yield the rows of `conversations` in their order; count conversations `too long`, and what is
    lost of them.
    """
    for record in conversations:
        whole = encode(tokenizer, record["messages"], record["tools"])
        if len(whole["input_ids"]) <= max_tokens:
            yield whole
            continue
        counts["too long"] += 1
        found: list[Row] = []
        if too_long == "truncate_left":
            found = truncate_left(tokenizer, whole, max_tokens)
        elif too_long == "split_turns":
            found = list(split_turns(tokenizer, record, max_tokens, counts))
        counts["lost"] += not found
        yield from found


def packed_rows(
    tokenizer: "PreTrainedTokenizerBase",
    max_tokens: int,
    too_long: TooLong,
    conversations: Iterable[records.Record],
    counts: Counter[str],
) -> Iterator[Row]:
    """Yield rows of at most `max_tokens` tokens with whole conversations in them, by TRL's best-fit
    decreasing.

    `seq_lengths` are the tokens of each conversation; their number is counted.
    """
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    for window in token_cache.batched(rows(tokenizer, max_tokens, too_long, conversations, counts), WINDOW):
        for row in window:
            row["labels"][0] = NONE  # or the conversation before it would be asked for it
        counts["packed"] += len(window)
        yield from pack_dataset(Dataset.from_list(window), max_tokens, "bfd", {"batch_size": WINDOW}).with_format(None)


def encode(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[records.Record], tools: str | None) -> Row:
    """Return {input_ids, labels} of turns: a label is the token itself where the assistant wrote
    it, else -100.
    """
    encoded = chat.encode(tokenizer, turns, tools)
    pairs = zip(encoded.input_ids, encoded.assistant_mask, strict=True)
    return {"input_ids": encoded.input_ids, "labels": [token if mask else NONE for token, mask in pairs]}


def truncate_left(tokenizer: "PreTrainedTokenizerBase", row: Row, max_tokens: int) -> list[Row]:
    """Return the row's last `max_tokens` tokens, behind the token that begins a text if it has one.

    There is no row when none of the labels is left to learn from. The first token is never
    predicted.
    """
    begin = row["input_ids"][:1] if row["input_ids"][0] == tokenizer.bos_token_id else []
    start = len(row["input_ids"]) - max_tokens + len(begin)
    cut = {"input_ids": begin + row["input_ids"][start:], "labels": [NONE] * len(begin) + row["labels"][start:]}
    return [cut] if any(label != NONE for label in cut["labels"][1:]) else []


def split_turns(
    tokenizer: "PreTrainedTokenizerBase", record: records.Record, max_tokens: int, counts: Counter[str]
) -> Iterator[Row]:
    """Yield a conversation as pieces of whole exchanges, each as many as fit, the system turn
    before every piece.

    Each answer is in one piece; an exchange that does not fit alone is left out and counted.
    """
    turns = record["messages"]
    system = turns[:1] if turns[0]["role"] == "system" else []
    piece: list[records.Record] = []
    fitting: Row | None = None
    for exchange in exchanges(turns[len(system) :]):
        longer = encode(tokenizer, [*system, *piece, *exchange], record["tools"])
        if len(longer["input_ids"]) > max_tokens:
            if fitting:
                yield fitting
            piece, fitting = [], None
            longer = encode(tokenizer, [*system, *exchange], record["tools"])
        if len(longer["input_ids"]) > max_tokens:
            counts["exchanges"] += 1
        else:
            piece, fitting = [*piece, *exchange], longer
    if fitting:
        yield fitting


def exchanges(turns: Sequence[records.Record]) -> Iterator[list[records.Record]]:
    """Yield turns cut before each user turn that follows another's; those without an answer are
    left out.
    """
    exchange: list[records.Record] = []
    for turn in [*turns, None]:
        begins = turn is None or (turn["role"] == "user" and exchange and exchange[-1]["role"] != "user")
        if begins:
            if any(one["role"] == "assistant" for one in exchange):
                yield exchange
            exchange = []
        if turn is not None:
            exchange.append(turn)


def summary(kept: int, counts: Counter[str], max_tokens: int, too_long: TooLong) -> str:
    """Return the counts as one line."""
    line = f"{kept:,} conversations, {counts['too long']:,} {OUTCOMES[too_long]}"
    line += f" as longer than {max_tokens} tokens"
    if too_long != "drop" and counts["lost"]:
        line += f", {counts['lost']:,} of them lost whole"
    if counts["exchanges"]:
        line += f", {counts['exchanges']:,} exchanges left out as longer alone"
    return line
