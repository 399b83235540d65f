"""Conversations as tokens: one chat template, one rendering, used by training, evaluation and
serving alike.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.core.records import Record
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END_OF_DOCUMENT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_DOCUMENT, START_OF_TURN, END_OF_TURN)
TEMPLATES = Path(__file__).parents[2] / "templates"


@dataclass(frozen=True)
class Encoded:
    """A conversation as `input_ids`, and `assistant_mask`: 1 where the loss is taken. Both have the
    same length.
    """

    input_ids: list[int]
    assistant_mask: list[int]


def template(name: str) -> str:
    """Return the chat template `name`. Raises DataError listing the ones there are."""
    path = TEMPLATES / f"{name}.jinja"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in TEMPLATES.glob("*.jinja")))
        raise DataError(f"no chat template '{name}'; there are: {known}", where=TEMPLATES)
    return path.read_text(encoding="utf-8")


def encode(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None = None) -> Encoded:
    """Return a whole conversation, with the mask of the tokens the assistant wrote (end of turn
    included).
    """
    batch = tokenizer.apply_chat_template(
        list(messages), tools=_schemas(tools), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    return Encoded(list(batch["input_ids"]), list(batch["assistant_masks"]))


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None = None
) -> list[int]:
    """Return the tokens that ask the assistant for its next turn."""
    batch = tokenizer.apply_chat_template(
        list(messages), tools=_schemas(tools), tokenize=True, return_dict=True, add_generation_prompt=True
    )
    return list(batch["input_ids"])


def _schemas(tools: str | None) -> list[Record] | None:
    if not tools:
        return None
    parsed = json.loads(tools)
    return parsed if isinstance(parsed, list) else [parsed]


def stops(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids at which an answer ends: end of turn, or of the document. Raises as
    `end_of_turn` does.
    """
    return [end_of_turn(tokenizer), int(tokenizer.convert_tokens_to_ids(END_OF_DOCUMENT))]


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id of the token that ends a turn. Raises DataError when the tokenizer has none."""
    identifier = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    if not isinstance(identifier, int) or identifier == tokenizer.unk_token_id:
        raise DataError(f"the tokenizer has no {END_OF_TURN}", remedy="run `dvc repro tokenizer`")
    return identifier


def end_with_turn(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Tell a base model's `generate` that an answer ends with its turn. Raises as `end_of_turn`
    does.
    """
    model.generation_config.eos_token_id = end_of_turn(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
