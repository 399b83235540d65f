"""Liked and disliked answers as tokens, for KTO: those that people have labelled, the best and the
worst of ranked ones, or both.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.common.core.left_out import LackError
from stages.common.core.params import StageParams
from stages.common.core.records import Record
from stages.common.pairs import pair_dataset, preference_pairs
from stages.common.pairs.pair_dataset import IDS
from stages.common.text import content_hash
from stages.common.training import token_cache

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("lathe")
SCHEMA = pa.schema(
    [
        ("prompt_ids", IDS),
        ("completion_ids", IDS),
        ("label", pa.bool_()),
        ("length", pa.int32()),
        ("asked", pa.int64()),
    ]
)
MISMATCHED = "KL_completion_ids"
"""TRL's name for the answer to another prompt that an example is read with."""
NEAR = 16
MOST_LIKED = 4 / 3


class AnswerParams(StageParams):
    """Keys of the stage that learns from liked and disliked answers."""

    max_tokens: int = 256
    """Longest prompt with its answer; longer ones are left out, counted and reported."""
    answers: Literal["labelled", "ranked", "both"] = "labelled"
    """Where answers come from: `labelled` by people; `ranked`, the best liked, the worst disliked
    and those between neither; or `both`.
    """

    def folders(self, labelled: Path, comparisons: Sequence[Path]) -> list[Path]:
        """Return the folders that are read."""
        given = [] if self.answers == "ranked" else [labelled]
        return [*given, *([] if self.answers == "labelled" else comparisons)]


def both_splits(
    tokenizer: "PreTrainedTokenizerBase", folders: Sequence[Path], settings: AnswerParams
) -> tuple["Dataset", "Dataset"]:
    """Return the answers of both splits of all folders; a prompt that one folder holds out is
    trained on in none. Raises LackError without liked and disliked answers to learn from.
    """
    train = tokenise(tokenizer, folders, "train", settings, pair_dataset.held_out(folders))
    liked, disliked = counted(train)
    if not liked or not disliked:
        what = f"all {len(train):,} answers are {'liked' if liked else 'disliked'}: there is nothing to tell apart"
        remedy = "bring some of the other kind, or learn from comparisons too (kto.answers: both)"
        raise LackError(what, where=folders[0] / "train", remedy=remedy)
    return train, tokenise(tokenizer, folders, "validation", settings)


def tokenise(
    tokenizer: "PreTrainedTokenizerBase",
    folders: Sequence[Path],
    split: str,
    settings: AnswerParams,
    without: frozenset[bytes] = frozenset(),
) -> "Dataset":
    """Return {prompt_ids, completion_ids, label, length, asked} of every answer in `split` of the
    folders of labelled answers or comparisons; `asked` is a hash of the first user turn.

    They are mapped into memory. What is left out is counted by reason and logged. Raises LackError
    when nothing is left.
    """
    preference_pairs.quiet_bars()
    places = [folder / split for folder in folders]
    data, counts = token_cache.dataset(partial(rows, tokenizer, settings.max_tokens, without), SCHEMA, places)
    liked, disliked = counted(data)
    left_out = [f"{count:,} {reason}" for reason, count in sorted(counts.items()) if count and reason != "comparisons"]
    told = f"of {counts['comparisons']:,} records; left out: {', '.join(left_out) or 'none'}"
    log.info("%s: %s liked and %s disliked answers %s", split, f"{liked:,}", f"{disliked:,}", told)
    if not len(data):
        remedy = "bring liked and disliked answers, learn from comparisons (kto.answers: ranked), or raise max_tokens"
        raise LackError(f"no answer to learn from: 0 {told}", where=places[0], remedy=remedy)
    return data


def rows(
    tokenizer: "PreTrainedTokenizerBase",
    max_tokens: int,
    without: frozenset[bytes],
    records: Iterable[Record],
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    """Yield the answers of `records` in their order; count records, and what is left out by
    reason.
    """
    for record in pair_dataset.not_held_out(records, without, counts):
        asked = int.from_bytes(content_hash.split_digest("labelled", record)[:8], "big", signed=True)
        for answer, liked in labels(record, counts):
            prompt, completion = preference_pairs.encode(tokenizer, record["prompt"], answer, record["tools"])
            length = len(prompt) + len(completion)
            if length > max_tokens:
                counts[f"answers longer than {max_tokens} tokens"] += 1
            else:
                found = {"prompt_ids": prompt, "completion_ids": completion, "label": liked}
                yield found | {"length": length, "asked": asked}


def labels(record: Record, counts: Counter[str]) -> list[tuple[str, bool]]:
    """Return the answers of a labelled record, or of a comparison, each with whether it is liked:
    of a comparison the best are and the worst are not.
    """
    if "response" in record:
        return [(record["response"], record["desirable"])]
    ranks = record["ranks"]
    best, worst = min(ranks, default=0), max(ranks, default=0)
    if best == worst:
        counts["with a single answer" if len(ranks) < 2 else "all tied"] += 1
        return []
    ranked = zip(record["responses"], ranks, strict=True)
    ends = [(answer, rank == best) for answer, rank in ranked if rank in (best, worst)]
    counts["answers between best and worst"] += len(ranks) - len(ends)
    return ends


def counted(data: "Dataset") -> tuple[int, int]:
    """Return how many answers are liked, and how many are not."""
    liked = int(pc.sum(data.data.column("label")).as_py() or 0)
    return liked, len(data) - liked


def weights(liked: int, disliked: int) -> tuple[float, float]:
    """Return the weights of liked and of disliked answers, lambda_D and lambda_U, for which
    lambda_D n_D / (lambda_U n_U) lies in [1, 4/3] (Ethayarajh et al. 2024, eq. 8).

    Both are 1 where the numbers lie there already; else those of the smaller kind weigh more, up to
    the nearer end.
    """
    ratio = liked / disliked
    if ratio < 1:
        return 1 / ratio, 1.0
    return 1.0, max(1.0, ratio / MOST_LIKED)


def mismatched(data: "Dataset") -> "Dataset":
    """Return the data with the answer to another prompt in each row, by which KTO's reference point
    is measured: that of the row `shift` places before. Nothing is copied.
    """
    from datasets import concatenate_datasets

    begin = len(data) - shift(data.data.column("asked").to_numpy())
    turned = concatenate_datasets([data.select(range(begin, len(data))), data.select(range(begin))])
    other = turned.select_columns(["completion_ids"]).rename_column("completion_ids", MISMATCHED)
    return concatenate_datasets([data, other], axis=1)


def shift(asked: NDArray[np.int64]) -> int:
    """Return by how many places answers are moved on, so that the fewest meet their own prompt.

    Answers to one prompt often stand together, or in another file at the same line.
    """
    most = len(asked)
    tried = [*range(1, NEAR), *(NEAR << double for double in range(most.bit_length()))]
    found = [(int((asked == np.roll(asked, one)).sum()), one) for one in tried if one < most]
    return min(found)[1] if found else 0
