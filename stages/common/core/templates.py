"""Chat templates: found by name, rendered to text and tokens, with the mask of what the assistant
said.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core.records import Record
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parents[2] / "templates"
REMEDY = "set tokenizer.chat_template to chatml or to a file of your own, and run `dvc repro tokenizer`"
Masked = tuple[list[int], list[int]]
"""Token ids, and as many marks: 1 where the assistant speaks."""


def read(name: str) -> str:
    """Return the chat template `name`: one of stages/templates, or the path of a .jinja file.
    Raises DataError.
    """
    path = Path(name) if name.endswith(".jinja") else TEMPLATES / f"{name}.jinja"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in TEMPLATES.glob("*.jinja")))
        raise DataError(f"no chat template '{name}'; there are: {known}", where=path.parent)
    return path.read_text(encoding="utf-8")


def text(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None = None, *, prompt: bool = False
) -> str:
    """Return a conversation as the template writes it, with `prompt` up to where the assistant is
    to speak.
    """
    return str(_apply(tokenizer, messages, tools, tokenize=False, add_generation_prompt=prompt))


def prompt(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None = None) -> list[int]:
    """Return the tokens that ask the assistant for its next turn."""
    batch = _apply(tokenizer, messages, tools, tokenize=True, return_dict=True, add_generation_prompt=True)
    return list(batch["input_ids"])


def by_marks(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None, template: str | None
) -> Masked:
    """Return a conversation with the mask that the generation marks give, of `template` or the
    tokenizer's own.
    """
    batch = _apply(
        tokenizer,
        messages,
        tools,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        chat_template=template,
    )
    return list(batch["input_ids"]), list(batch["assistant_masks"])


def by_turns(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None) -> Masked:
    """Return a conversation whose mask is what each turn of the assistant adds to the prompt before
    it.

    Raises DataError where the pieces do not join to the whole: a template may write a turn
    otherwise once others follow, and its mask would then lie beside what is said.
    """
    whole = text(tokenizer, messages, tools)
    spoken: list[tuple[int, int]] = []
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            before = text(tokenizer, messages[:at], tools, prompt=True)
            after = text(tokenizer, messages[: at + 1], tools).rstrip()
            if not (after.startswith(before) and whole.startswith(after)):
                what = f"the chat template writes turn {at + 1} in another way when it stands in a conversation"
                raise DataError(f"{what}, so what the assistant said cannot be told", remedy=REMEDY)
            spoken.append((len(before), len(after)))
    batch = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    mask = [int(any(begin < stop and end > start for start, stop in spoken)) for begin, end in batch["offset_mapping"]]
    return list(batch["input_ids"]), mask


def with_marks(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the templates by whose marks a mask can be had: the tokenizer's own, and TRL's for
    training with it.
    """
    own = tokenizer.chat_template["default"] if isinstance(tokenizer.chat_template, dict) else tokenizer.chat_template
    if re.search(r"\{%-?\s*generation\s*-?%\}", own):
        return [own]
    from jinja2 import TemplateError
    from trl.chat_template_utils import get_training_chat_template

    try:
        found = get_training_chat_template(tokenizer)
    except (TemplateError, TypeError, ValueError) as error:  # unknown to TRL, or it refuses what TRL tries it with
        log.debug("no marks from TRL for this chat template, its turns are told apart by what each adds: %s", error)
        return []
    return [found] if found else []


def _apply(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None, **how: Any) -> Any:
    """Return what the template makes of the messages. Raises DataError for what it refuses."""
    from jinja2 import TemplateError

    if not messages or not tokenizer.chat_template:
        raise DataError("no message" if not messages else "the tokenizer has no chat template", remedy=REMEDY)
    offered = schemas(tools)
    try:
        try:
            return tokenizer.apply_chat_template([_message(one) for one in messages], tools=offered, **how)
        except TypeError:  # templates of DeepSeek join a call's arguments as text
            told = [_message(one, as_text=True) for one in messages]
            return tokenizer.apply_chat_template(told, tools=offered, **how)
    except (TemplateError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        roles = ", ".join(one["role"] for one in messages)
        raise DataError(f"the chat template refuses a conversation of {roles}: {reason}", remedy=REMEDY) from error


def _message(message: Record, as_text: bool = False) -> Record:
    """Return a message under the names of this project's ChatML and those that models' own
    templates read.

    What is not there is left out: many templates ask only whether there is such a key.
    """
    said = {"role": message["role"], "content": message["content"] or ""}
    if thought := message.get("thought"):
        said |= {"thought": thought, "reasoning_content": thought, "thinking": thought}
    if calls := message.get("tool_calls"):
        said["tool_calls"] = [{"type": "function", **call, "function": _call(call, as_text)} for call in calls]
    return said


def _call(call: Record, as_text: bool) -> Record:
    try:
        return call if as_text else call | {"arguments": json.loads(call["arguments"])}
    except ValueError:
        return call


def schemas(tools: str | None) -> list[Record] | None:
    """Return the tools as OpenAI writes them, which is what templates read."""
    if not tools:
        return None
    parsed = json.loads(tools)
    listed = parsed if isinstance(parsed, list) else [parsed]
    return [{"type": "function", "function": one} if "name" in one else one for one in listed]
