"""Dialogues: lists of lines said in turn, and ConvoKit's one row a line (the Cornell movie
dialogues).
"""

from typing import Any, NamedTuple

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed, first, string
from stages.common.ingest.layouts.turns import turns

DIALOGUE_KEYS = ("dialog", "dialogue", "data")
SPEAKER_KEYS, CONVERSATION_KEYS, REPLY_KEYS = ("speaker", "user"), ("conversation_id", "root"), ("reply-to", "reply_to")
LONGEST_DIALOGUE = 1_000
ROLES_IN_TURN = ("user", "assistant")


class Line(NamedTuple):
    """One line of a dialogue, with the raw row's number: who says it, in which conversation, after
    which line.
    """

    number: int
    conversation: str
    name: str
    after: str | None
    speaker: str
    text: str


class Dialogue(NamedTuple):
    """Lines made one conversation: its messages, the numbers of the rows in it and those of rows
    nobody answers.
    """

    messages: list[Record]
    used: list[int]
    unanswered: list[int]


def dialogue(row: Record) -> Record:
    """`{"dialog" | "data": [str, …]}`, lines said in turn, or `[{"role" | "from", …}, …]` ->
    conversation.
    """
    lines = row[first(row, DIALOGUE_KEYS) or DIALOGUE_KEYS[0]]
    if not is_said_in_turn(lines):
        return {"messages": turns(lines), "tools": None}
    return {"messages": [message(ROLES_IN_TURN[at % 2], line) for at, line in enumerate(lines)], "tools": None}


def is_said_in_turn(value: Any) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(line, str) for line in value)


def is_line(row: Record) -> bool:
    """Whether a row is one of ConvoKit's utterances."""
    known = first(row, SPEAKER_KEYS) and first(row, CONVERSATION_KEYS) and row.get("id") is not None
    return bool(known) and "text" in row and any(key in row for key in REPLY_KEYS)


def line(number: int, row: Record) -> Line:
    """`{"id", "conversation_id", "speaker", "text", "reply-to"}` -> a line of a dialogue. Raises
    Malformed.
    """
    speaker_key, conversation_key = first(row, SPEAKER_KEYS) or "speaker", first(row, CONVERSATION_KEYS) or "root"
    speaker = row[speaker_key]
    named = speaker if isinstance(speaker, dict) else row
    after = first(row, REPLY_KEYS)
    return Line(
        number,
        string(row, conversation_key),
        string(row, "id"),
        string(row, after) if after else None,
        string(named, "id" if isinstance(speaker, dict) else speaker_key),
        string(row, "text"),
    )


def joined(lines: list[Line]) -> Dialogue:
    """Return lines of one conversation as messages, ordered by who replies to whom.

    The first speaker is the user and the other the assistant; lines one says in a row are one
    message. Lines after the last answer are left over. Raises Malformed when there are three
    speakers or the replies make no single chain.
    """
    ordered = _chain(lines)
    speakers = list(dict.fromkeys(line.speaker for line in ordered))
    if len(speakers) > 2:
        raise Malformed("bad dialogue", f"{len(speakers)} speakers")
    said: list[list[Line]] = []
    for one in ordered:
        if said and said[-1][0].speaker == one.speaker:
            said[-1].append(one)
        else:
            said.append([one])
    answered = said[: len(said) // 2 * 2]
    texts = ["\n".join(one.text for one in group) for group in answered]
    messages = [message(ROLES_IN_TURN[at % 2], text) for at, text in enumerate(texts)]
    rest = said[len(answered) :]
    return Dialogue(
        messages, [one.number for group in answered for one in group], [one.number for group in rest for one in group]
    )


def _chain(lines: list[Line]) -> list[Line]:
    names = {one.name for one in lines}
    follower = {one.after: one for one in lines if one.after in names}
    starts = [one for one in lines if one.after not in names]
    ordered = starts[:1]
    while ordered and len(ordered) < len(lines) and ordered[-1].name in follower:
        ordered.append(follower[ordered[-1].name])
    if len(ordered) != len(lines) or len(names) != len(lines):
        raise Malformed("bad dialogue", "the replies are not one chain")
    return ordered
