"""A conversation as the model will read it: cleaned as its training text was, cut to the model's
context.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.common.core import chat, special_tokens
from stages.common.core.records import Record
from stages.common.serving.engine.requests import UnansweredError
from stages.common.text import normalisation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CONTEXT = "context_length_exceeded"


@dataclass(frozen=True)
class Fitted:
    """A prompt's tokens, and how many of the oldest messages were left out for it to fit."""

    tokens: list[int]
    dropped: int


def too_long(what: str, tokens: int, room: int, field: str) -> UnansweredError:
    """Return the failure of a question that is longer than the model's context."""
    return UnansweredError(
        f"the {what} has {tokens} tokens, and there is room for {max(room, 0)}",
        field=field,
        kind=CONTEXT,
        remedy="shorten it, or lower the longest answer",
    )


def raw(tokenizer: "PreTrainedTokenizerBase", prompt: str | Sequence[int], room: int | None, vocabulary: int) -> Fitted:
    """Return a text, or its tokens, as they are: nothing is cleaned, nothing is left out. An empty
    one is what begins a document.

    Raises UnansweredError for one that is too long, and for tokens that the model does not have.
    """
    tokens = chat.encode_texts(tokenizer, [prompt])[0] if isinstance(prompt, str) else list(prompt)
    tokens = tokens or [chat.end_of_document(tokenizer)]
    unknown = next((token for token in tokens if not 0 <= token < vocabulary), None)
    if unknown is not None:
        raise UnansweredError(f"there is no token {unknown}", field="prompt", kind="invalid_value")
    if room is not None and len(tokens) > room:
        raise too_long("prompt", len(tokens), room, "prompt")
    return Fitted(tokens, 0)


def plain(text: str, special: Sequence[str] = chat.SPECIAL_TOKENS) -> str:
    """Return `text` normalised and without `special` tokens: what is said must not end its own
    turn.
    """
    before = None
    while text != before:  # taking one out can make another
        before, text = text, normalisation.normalise(text)
        for token in special:
            text = text.replace(token, "")
    return text


def readable(value: Any, special: Sequence[str]) -> Any:
    """Return `value`, of the kind that JSON has, with every text in it `plain`."""
    if isinstance(value, dict):
        return {plain(key, special): readable(inner, special) for key, inner in value.items()}
    if isinstance(value, list):
        return [readable(inner, special) for inner in value]
    return plain(value, special) if isinstance(value, str) else value


def fitted(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], room: int | None, tools: str | None = None
) -> Fitted:
    """Return the prompt, the oldest turns dropped until it is at most `room` tokens; a system
    prompt stays.

    `tools` are JSON, as in `chat.encode_prompt`; a tool's result stays with its question. Without
    `room` nothing is dropped. Raises UnansweredError when even the last turn alone is too long.
    """
    special = special_tokens.special_tokens(tokenizer)
    said = [readable(message, special) for message in messages]
    offered = json.dumps(readable(json.loads(tools), special), ensure_ascii=False) if tools else None
    system = [message for message in said[:1] if message["role"] == "system"]
    turns = said[len(system) :]
    # An answer without its question would confuse, and so would a tool's result.
    last = len(turns) - 1
    begins = [turn["role"] == "user" or (at == last and turn["role"] != "tool") for at, turn in enumerate(turns)]
    starts = [0, *(at for at in range(1, len(turns)) if begins[at])]

    def tokens(start: int) -> list[int]:
        return chat.encode_prompt(tokenizer, [*system, *turns[start:]], offered)

    found = tokens(0)
    if room is None or len(found) <= room:
        return Fitted(found, 0)
    least = tokens(starts[-1])
    if len(least) > room:
        raise too_long("message", len(least), room, "messages")
    start = starts[bisect_left(starts, True, key=lambda at: len(tokens(at)) <= room)]
    return Fitted(tokens(start), start)
