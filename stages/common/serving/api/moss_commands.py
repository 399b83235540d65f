"""MOSS's commands when it answers: what it writes before its answer, told apart, and which of the
server's tools its meta instruction switches on.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from stages.common.core.records import Record, message
from stages.common.serving.engine.champions import Question
from stages.common.text import moss

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMMANDS, END_OF_COMMANDS, END_OF_THOUGHT = "<|Commands|>", "<eoc>", "<eot>"
MARKS = re.compile(r"<\|(?:Human|Inner Thoughts|Commands|Results|MOSS)\|>:?|<eo[a-z]>")
NO_RESULT = "None"


class Written(NamedTuple):
    """What stands before an answer: a thought, and calls as (name, arguments)."""

    thought: str | None
    calls: list[tuple[str, str]]


def speaks(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether a model writes MOSS's commands, by its chat template."""
    return COMMANDS in str(tokenizer.chat_template)


def are_asked(question: Question, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether an answer to the question begins with a thought and commands: there are tools, and
    none has answered yet.
    """
    return question.tools is not None and question.messages[-1]["role"] != "tool" and speaks(tokenizer)


def asking(question: Question) -> Question:
    """Return the question for a thought and commands alone."""
    return replace(question, marks=True, stop=(END_OF_COMMANDS,))


def written(text: str, tools: str) -> Written | None:
    """Return what a model wrote up to the end of its commands, calls under the names of `tools`;
    None where there is no place for commands.

    What is no command in that place counts as none: the model answers without.
    """
    thought, found, commands = text.partition(COMMANDS)
    if not found:
        return None
    offered = [one.get("function", one) for one in json.loads(tools)]
    names = [one["name"] for one in offered]
    said = without_marks(thought)
    try:
        calls = moss.commands(commands.lstrip(" :").replace(END_OF_COMMANDS, "").strip())
    except ValueError:
        calls = []
    named = [call._replace(name=_own_name(call.name, names)) for call in calls]
    return Written(said if said != NO_RESULT else None, [(call.name, moss.arguments(call, offered)) for call in named])


def _own_name(name: str, names: Sequence[str]) -> str:
    own = moss.OWN_NAMES.get(name, name)
    return own if name not in names and own in names else name


def no_results(thought: str | None) -> list[Record]:
    """Return the turns of a thought that led to no command."""
    return [message("assistant", "", thought), message("tool", NO_RESULT)]


def without_marks(text: str) -> str:
    """Return a text without MOSS's marks."""
    return MARKS.sub("", text).strip()


def switched_on(messages: Sequence[Record], names: Sequence[str]) -> list[str]:
    """Return which of the tools `names` the system turn switches on as MOSS's plugins."""
    instruction = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    wanted = [str(tool["name"]) for tool in moss.switched_on(instruction)]
    return list(dict.fromkeys(own for name in wanted if (own := _own_name(name, names)) in names))
