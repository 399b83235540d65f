"""What a well-formed exchange is: system first if at all, user and assistant in turn, tool results after a call."""

from collections.abc import Sequence

from stages.common.records import Record

FOLLOWERS = {
    "start": {"system", "user"},
    "system": {"user"},
    "user": {"assistant", "call"},
    "assistant": {"user"},
    "call": {"tool"},
    "tool": {"tool", "assistant", "call"},
}


def empty(messages: Sequence[Record]) -> bool:
    """Whether there is no turn at all or one that says nothing; a tool call says something."""
    return not messages or any(not (turn["content"].strip() or turn["tool_calls"]) for turn in messages)


def in_order(messages: Sequence[Record]) -> bool:
    """Whether each turn may follow the one before it."""
    before = "start"
    for turn in messages:
        now = "call" if turn["role"] == "assistant" and turn["tool_calls"] else turn["role"]
        if now not in FOLLOWERS[before]:
            return False
        before = now
    return True


def answered(messages: Sequence[Record]) -> bool:
    """Whether the assistant has the last word."""
    return bool(messages) and messages[-1]["role"] == "assistant"


def awaits_answer(messages: Sequence[Record], *, of: tuple[str, ...] = ("user", "tool")) -> bool:
    """Whether it is the assistant's turn, after a turn `of` one of these roles."""
    return bool(messages) and messages[-1]["role"] in of
