"""What people's own answers score: the zero and the unit of a reward."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.core import chat, records
from stages.common.reward import scoring
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def tokenise(tokenizer: "PreTrainedTokenizerBase", conversations: Path, count: int, max_tokens: int) -> list[list[int]]:
    """Return the first `count` training conversations up to their last answer, as tokens.

    Those without an answer or too long are passed over. Raises DataError when none is left.
    """
    rows: list[list[int]] = []
    for record in records.read(conversations / "train"):
        spoken = record["messages"]
        while spoken and spoken[-1]["role"] != "assistant":
            spoken = spoken[:-1]
        spoken = [*spoken[:-1], *(turn | {"thought": None} for turn in spoken[-1:])]  # scored is what is said
        tokens = chat.encode(tokenizer, spoken, record["tools"]).input_ids if spoken else []
        if 0 < len(tokens) <= max_tokens:
            rows.append(tokens)
        if len(rows) == count:
            break
    if not rows:
        what = f"no answer within {max_tokens} tokens to centre the scores on"
        raise DataError(what, where=conversations / "train", remedy="raise max_tokens")
    return rows


def unit(
    reward: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", conversations: Path, count: int, max_tokens: int
) -> tuple[float, float]:
    """Return mean and standard deviation (over n - 1) of the scores of demonstrations; 0 of a
    single one.
    """
    import statistics

    scores = scoring.score_rows(reward, tokenise(tokenizer, conversations, count, max_tokens))
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0
