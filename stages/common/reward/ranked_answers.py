"""Comparisons as a reward model reads them: a prompt with its K answers is one element, an answer a
token sequence.

Of an answer it reads what is said, without thoughts, here and wherever it scores (`scoring`, PPO's
rollouts).
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from stages.common.core import records
from stages.common.core.left_out import LackError
from stages.common.pairs import pair_dataset, preference_pairs
from stages.common.reward.batches import Row, opening
from stages.common.text.thoughts import without_thoughts
from stages.common.training import token_cache

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("lathe")
NUMBERS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        ("rows", pa.list_(NUMBERS)),
        ("ranks", NUMBERS),
        ("lengths", NUMBERS),
        ("length", pa.int32()),
        ("width", pa.int32()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("categories", pa.list_(pa.string())),
    ]
)


def tokenise(
    tokenizer: "PreTrainedTokenizerBase",
    folders: Sequence[Path],
    split: str,
    max_tokens: int,
    without: frozenset[bytes] = frozenset(),
) -> tuple["Dataset", Counter[str]]:
    """Return a row a comparison of `split`, and counts of what there was and what was left out, by
    reason.

    A row is {rows: token ids of prompt and answer, a list an answer, ranks, lengths (of the answers
    alone), length (of the longest), width, id, source, categories}; the rows are mapped into
    memory. Left out and counted: answers that end beyond `max_tokens`, comparisons whose first user
    turn is in `without` (held out in another folder), and those that give no pair: a single answer,
    all of one rank. Raises LackError when nothing is left.
    """
    places = [folder / split for folder in folders]
    data, counts = token_cache.dataset(partial(rows, tokenizer, max_tokens, without), SCHEMA, places)
    log.info("%s: %s", split, summary(len(data), counts))
    if not len(data):
        what = f"no comparison to learn from: {summary(0, counts)}"
        where = ", ".join(map(str, places))
        raise LackError(what, where=where, remedy="bring ranked answers, rank differently, or raise reward.max_tokens")
    return data, counts


def rows(
    tokenizer: "PreTrainedTokenizerBase",
    max_tokens: int,
    without: frozenset[bytes],
    comparisons: Iterable[records.Record],
    counts: Counter[str],
) -> Iterator[Row]:
    """Yield the rows of `comparisons` in their order; count comparisons, and what is left out by
    reason.
    """
    for record in pair_dataset.not_held_out(comparisons, without, counts):
        if row := _row(tokenizer, record, max_tokens, counts):
            yield row


def _row(
    tokenizer: "PreTrainedTokenizerBase", record: records.Record, max_tokens: int, counts: Counter[str]
) -> Row | None:
    if len(record["responses"]) < 2:
        counts["with a single answer"] += 1
        return None
    encoded = [
        preference_pairs.encode(tokenizer, record["prompt"], without_thoughts(answer), record["tools"])
        for answer in record["responses"]
    ]
    fitting = [at for at, (prompt, answer) in enumerate(encoded) if len(prompt) + len(answer) <= max_tokens]
    counts["answers too long"] += len(encoded) - len(fitting)
    ranks = [record["ranks"][at] for at in fitting]
    if len(set(ranks)) < 2:
        counts["without two ranks" if len(fitting) == len(encoded) else "without two ranks that fit"] += 1
        return None
    whole = [encoded[at][0] + encoded[at][1] for at in fitting]
    lengths = [len(encoded[at][1]) for at in fitting]
    return {
        "rows": whole,
        "ranks": ranks,
        "lengths": lengths,
        "length": max(map(len, whole)),
        "width": sum(map(len, whole)) - (len(whole) - 1) * opening(whole, lengths),
        "id": record["id"],
        "source": record["source"],
        "categories": record["categories"] or [],
    }


def first_and_longest(data: "Dataset", count: int) -> list[Row]:
    """Return the first `count` rows, and the one with the longest answer behind them."""
    longest = int(data.data.column("length").to_numpy().argmax())
    return [data[at] for at in (*range(min(count, len(data))), longest)]


def summary(kept: int, counts: Counter[str]) -> str:
    """Return the counts as one line."""
    left_out = [f"{count:,} {reason}" for reason, count in sorted(counts.items()) if count and reason != "comparisons"]
    return f"{kept:,} of {counts['comparisons']:,} comparisons; left out: {', '.join(left_out) or 'none'}"
