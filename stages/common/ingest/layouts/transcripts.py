"""Talk written as one text: HH-RLHF's and BELLE's Human and Assistant, ChatGLM's rounds of
问 and 答, MOSS's marks.
"""

import re

from stages.common.core.records import Record, message
from stages.common.ingest.layouts import moss
from stages.common.ingest.layouts.fields import Malformed, first, string
from stages.common.ingest.layouts.turns import SYSTEM_KEYS, with_system

SPEAKER_OF_PARAGRAPH = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant) ?[:：]")
SPEAKER_OF_LINE = re.compile(r"(?:\A\s*|\n)(Human|Assistant) ?[:：]")
KEYS = ("plain_text", "transcript", "text")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
ROUND = re.compile(r"\[Round \d+\]\s*问[:：]")
ANSWER = re.compile(r"\n\s*答[:：]")
START_HUMAN = re.compile(r"\s*Human ?[:：]")
START_ROUND = re.compile(r"\s*\[Round \d+\]\s*问[:：]")
START_MOSS = re.compile(r"\s*(?:<\|Human\|>|\[Human\])\s*:")


def is_transcript(text: str) -> bool:
    """Whether a text is a conversation written down."""
    if START_HUMAN.match(text):
        return any(found[1] == "Assistant" for found in _speaker(text).finditer(text))
    return bool(START_ROUND.match(text) or START_MOSS.match(text))


def messages(text: str) -> list[Record]:
    """Return the messages of a transcript; an answer left empty at its end is still to come. Raises
    Malformed.
    """
    said = spoken(text)
    said = said[:-1] if said[-1] == message("assistant", "") else said
    if not said:
        raise Malformed("bad transcript", "nobody says anything")
    return said


def spoken(text: str) -> list[Record]:
    """Return every message of a transcript, at least one. Raises Malformed."""
    if START_ROUND.match(text):
        return _rounds(text)
    return moss.parts(text) if START_MOSS.match(text) else _speakers(text)


def conversation(row: Record) -> Record:
    """A transcript under `text`, `transcript`, or MOSS's `plain_text` with its `prefix` ->
    conversation.
    """
    key = first(row, KEYS) or "text"
    systems = ("prefix", *SYSTEM_KEYS) if key == "plain_text" else SYSTEM_KEYS
    return {"messages": with_system(row, messages(string(row, key)), systems), "tools": None}


def _speakers(text: str) -> list[Record]:
    found = list(_speaker(text).finditer(text))
    if not found or text[: found[0].start()].strip():
        raise Malformed("bad transcript", "it does not start with Human or Assistant")
    ends = [*(one.start() for one in found[1:]), len(text)]
    return [message(SPEAKERS[one[1]], text[one.end() : end].strip()) for one, end in zip(found, ends, strict=True)]


def _speaker(text: str) -> re.Pattern[str]:
    """Return where speakers change: at paragraphs as HH-RLHF writes it, or else at lines as BELLE
    does.
    """
    return SPEAKER_OF_PARAGRAPH if "\n\nAssistant" in text else SPEAKER_OF_LINE


def _rounds(text: str) -> list[Record]:
    """Split at `[Round n] 问：` and, inside a round, at the first line that starts with `答：`."""
    said = []
    for one in ROUND.split(text)[1:]:
        answer = ANSWER.search(one)
        said.append(message("user", one[: answer.start() if answer else None].strip()))
        if answer:
            said.append(message("assistant", one[answer.end() :].strip()))
    return said
