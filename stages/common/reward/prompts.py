"""Prompts to be answered and rewarded: those of a round's samples that leave room for an answer and
that some reward can say something about.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.core import chat, records
from stages.common.core.left_out import LackError
from stages.common.reward import checked
from stages.common.reward.checked import Asked, Prompt, Reward
from stages.common.runtime.logs import log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read(
    tokenizer: "PreTrainedTokenizerBase", samples: Path, room: int, rewards: Sequence[Reward], stage: str
) -> list[Prompt]:
    """Return the prompts of one split of fewer than `room` tokens, in order; the others are
    counted.

    Raises LackError when none is left.
    """
    found, counts = [], {"too long": 0, "without a reference": 0}
    for row in records.read(samples):
        tokens, asked = chat.encode_prompt(tokenizer, row["messages"]), Asked.of(row)
        if len(tokens) >= room:
            counts["too long"] += 1
        elif not checked.scorable(rewards, asked):
            counts["without a reference"] += 1
        else:
            found.append(Prompt(tokens, asked))
    said = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    log.info("%s: %d prompts%s", samples.name, len(found), f"; left out: {said}" if said else "")
    if not found:
        what = f"no prompt to answer{f' ({said})' if said else ''}"
        remedy = f"bring prompts, or raise {stage}.max_tokens"
        if counts["without a reference"]:
            remedy = f"bring prompts with references, or add a reward that needs none to {stage}.rewards"
        raise LackError(what, where=samples, remedy=remedy)
    return found
