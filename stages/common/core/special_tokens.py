"""Tokens that are no text: which a tokenizer has, which the base has never read, which one pads."""

from functools import lru_cache
from typing import TYPE_CHECKING

from stages.common.core import chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEW_PADDING = "<|pad|>"
"""For a base whose tokens all mean something else."""


def untrained(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids of the tokens that a conversation has and the base has never read: those that
    were added to it.

    A base trained here on documents has read none of those that make turns.
    """
    if chat.OF_BASE in tokenizer.init_kwargs:
        return [int(tokenizer.convert_tokens_to_ids(token)) for token in chat.of_base(tokenizer, "new")]
    special = {int(tokenizer.convert_tokens_to_ids(token)) for token in special_tokens(tokenizer)}
    return sorted(special - {chat.end_of_document(tokenizer), tokenizer.pad_token_id})


@lru_cache(maxsize=16)
def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, ...]:
    """Return all tokens that are no text, as they are written."""
    added = [str(entry) for entry in tokenizer.added_tokens_decoder.values() if entry.special]
    return tuple(dict.fromkeys([*added, *tokenizer.all_special_tokens]))


def set_padding(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Let the tokenizer pad with a token that ends neither a turn nor a text and begins none; add
    one if all do.
    """
    used = {chat.end_of_turn(tokenizer), *chat.base_ends(tokenizer), tokenizer.bos_token_id}
    there = [token for token in (tokenizer.pad_token, tokenizer.unk_token) if token]
    chosen = next((token for token in there if tokenizer.convert_tokens_to_ids(token) not in used), NEW_PADDING)
    if chosen != tokenizer.pad_token:
        tokenizer.add_special_tokens({"pad_token": chosen})
