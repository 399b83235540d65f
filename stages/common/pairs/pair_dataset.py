"""Ranked answers as pairs of token sequences: a better and a worse answer to one prompt, for DPO
and ORPO alike.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stages.common.core import records
from stages.common.core.left_out import LackError
from stages.common.pairs import preference_pairs
from stages.common.pairs.preference_pairs import PairParams
from stages.common.text import content_hash
from stages.common.training import token_cache

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("lathe")
Row = dict[str, Any]
IDS = pa.list_(pa.int32())
SCHEMA = pa.schema([("prompt_ids", IDS), ("chosen_ids", IDS), ("rejected_ids", IDS), ("length", pa.int32())])


def held_out(folders: Sequence[Path]) -> frozenset[bytes]:
    """Return the first user turns (as `content_hash.split_digest`) of all held-out comparisons."""
    rows = (record for folder in folders for record in records.read(folder / "validation"))
    return frozenset(content_hash.split_digest("comparisons", record) for record in rows)


def not_held_out(
    comparisons: Iterable[records.Record], without: frozenset[bytes], counts: Counter[str]
) -> Iterator[records.Record]:
    """Yield the comparisons whose first user turn is not in `without`; count all and the rest."""
    for record in comparisons:
        counts["comparisons"] += 1
        if content_hash.split_digest("comparisons", record) in without:
            counts["held out elsewhere"] += 1
        else:
            yield record


def both_splits(
    tokenizer: "PreTrainedTokenizerBase", folders: Sequence[Path], settings: PairParams
) -> tuple["Dataset", "Dataset"]:
    """Return the pairs of both splits of all folders; a prompt that one folder holds out is trained
    on in none.
    """
    train = tokenise(tokenizer, folders, "train", settings, held_out(folders))
    return train, tokenise(tokenizer, folders, "validation", settings)


def tokenise(
    tokenizer: "PreTrainedTokenizerBase",
    folders: Sequence[Path],
    split: str,
    settings: PairParams,
    without: frozenset[bytes] = frozenset(),
) -> "Dataset":
    """Return {prompt_ids, chosen_ids, rejected_ids, length} of every pair in `split` of the
    comparisons' folders.

    They are mapped into memory. What gives no pair is counted by reason and logged: a first user
    turn in `without`, a single answer, all answers of one rank, two answers that are the same
    tokens, an answer that ends beyond `max_tokens`. Raises LackError when no pair is left.
    """
    preference_pairs.quiet_bars()
    chosen = PairParams(**settings.model_dump(include=set(PairParams.model_fields)))  # the rest makes no other rows
    places = [folder / split for folder in folders]
    data, counts = token_cache.dataset(partial(rows, tokenizer, chosen, without), SCHEMA, places)
    log.info("%s: %s", split, summary(len(data), counts))
    if not len(data):
        raise LackError(
            f"no pair to learn from: {summary(0, counts)}",
            where=places[0],
            remedy="bring ranked answers, rank differently, or raise max_tokens",
        )
    return data


def rows(
    tokenizer: "PreTrainedTokenizerBase",
    settings: PairParams,
    without: frozenset[bytes],
    comparisons: Iterable[records.Record],
    counts: Counter[str],
) -> Iterator[Row]:
    """Yield the pairs of `comparisons` in their order; count comparisons, and what is left out by
    reason.
    """
    for record in not_held_out(comparisons, without, counts):
        yield from pairs_of(tokenizer, record, settings, counts)


def pairs_of(
    tokenizer: "PreTrainedTokenizerBase", record: records.Record, settings: PairParams, counts: Counter[str]
) -> Iterator[Row]:
    """Yield the pairs of one comparison."""
    every = preference_pairs.pairs(record["ranks"], settings.pairs)
    ordered = preference_pairs.drawn(every, record["responses"], settings.most_pairs)
    if not ordered:
        counts["with a single answer" if len(record["ranks"]) < 2 else "all tied"] += 1
        return
    encoded = [
        preference_pairs.encode(tokenizer, record["prompt"], answer, record["tools"]) for answer in record["responses"]
    ]
    for better, worse in ordered:
        (prompt, chosen), rejected = encoded[better], encoded[worse][1]
        length = len(prompt) + max(len(chosen), len(rejected))
        if encoded[worse][0] != prompt or chosen == rejected:
            counts["pairs of equal answers" if chosen == rejected else "pairs that start apart"] += 1
        elif length > settings.max_tokens:
            counts[f"pairs longer than {settings.max_tokens} tokens"] += 1
        else:
            yield {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "length": length}


def summary(kept: int, counts: Counter[str]) -> str:
    """Return the counts as one line."""
    left_out = [f"{count:,} {reason}" for reason, count in sorted(counts.items()) if reason != "comparisons"]
    return f"{kept:,} pairs of {counts['comparisons']:,} comparisons; left out: {', '.join(left_out) or 'none'}"
