"""Pairs of ranked answers: which of them are learnt from, in which tokens, and how they make a
batch.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from stages.common.core import chat, records
from stages.common.core.params import StageParams

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Which = Literal["best", "all"]
Row = dict[str, Any]


class PairParams(StageParams):
    """Keys of the trainer stages that learn from pairs of ranked answers."""

    max_tokens: int = 256
    """Longest prompt with its answer; pairs with a longer one are left out, counted and
    reported.
    """
    pairs: Which = "best"
    """Pairs of K ranked answers: `best`, the best against each worse one; `all`, any two of
    different rank.
    """
    most_pairs: PositiveInt | None = None
    """Pairs of one comparison at most; null takes all of them. Which ones, a hash of the answers
    says.
    """


def pairs(ranks: Sequence[int], which: Which) -> list[tuple[int, int]]:
    """Return the indices (better, worse) of the pairs to learn from K answers whose `ranks` are 1
    for the best.

    `best` pairs every answer of the best rank with every worse one; `all` pairs any two whose ranks
    differ. Ties make no pair.
    """
    best = min(ranks, default=0)
    return [
        (better, worse)
        for better, high in enumerate(ranks)
        for worse, low in enumerate(ranks)
        if high < low and (which == "all" or high == best)
    ]


def drawn(ordered: list[tuple[int, int]], responses: Sequence[str], most: int | None) -> list[tuple[int, int]]:
    """Return at most `most` of a comparison's pairs, in their order: those whose answers hash
    lowest.
    """

    def digest(pair: tuple[int, int]) -> str:
        return hashlib.sha256("\n".join(responses[at] for at in pair).encode()).hexdigest()

    return sorted(sorted(ordered, key=digest)[:most])


def encode(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[records.Record], answer: str, tools: str | None = None
) -> tuple[list[int], list[int]]:
    """Return the tokens of the prompt, and those of the answer to it, end of turn included.

    They are what `chat.encode` gives the whole conversation, so SFT, preferences and decoding see
    one rendering; the answer begins where the whole and the prompt alone part.
    """
    prompt = chat.encode_prompt(tokenizer, messages, tools)
    whole = chat.encode(tokenizer, [*messages, records.message("assistant", answer)], tools).input_ids
    shared = next((at for at, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), len(prompt))
    return whole[:shared], whole[shared:]


def inputs(**named: Path | Iterable[Path]) -> dict[str, Path]:
    """Return a trainer's inputs by name for its fingerprint: several folders of one name are
    numbered from 1.
    """
    found: dict[str, Path] = {}
    for name, value in named.items():
        if isinstance(value, Path):
            found[name] = value
        else:
            found |= {f"{name}-{number}": path for number, path in enumerate(value, 1)}
    return found


def collate(rows: Sequence[Row]) -> dict[str, "torch.Tensor"]:
    """Return B pairs as 2B rows, the chosen answers first: input_ids, attention_mask and answers,
    all [2B, T].

    Rows are padded on the right with 0; `answers` holds the answer's tokens at their places, -100
    elsewhere.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    pairs = [(row["prompt_ids"], row[key]) for key in ("chosen_ids", "rejected_ids") for row in rows]
    whole = [torch.tensor(prompt + answer) for prompt, answer in pairs]
    answers = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in pairs]
    return {
        "input_ids": pad_sequence(whole, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in whole], batch_first=True),
        "answers": pad_sequence(answers, batch_first=True, padding_value=-100),
    }


def quiet_bars() -> None:
    """Switch off the bars of TRL's and datasets' preparations where there is no terminal to draw
    them on.
    """
    from datasets import disable_progress_bars

    disable_progress_bars()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
