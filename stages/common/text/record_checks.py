"""What is wrong with a record by itself: empty, cut, or in the wrong order."""

from collections.abc import Sequence

from stages.common.core.records import TURNS, Record, Shape, answers

FOLLOWERS = {
    "start": {"system", "user"},
    "system": {"user"},
    "user": {"assistant", "call"},
    "assistant": {"user"},
    "call": {"tool"},
    "tool": {"tool", "assistant", "call"},
}
ENDS = {
    "conversations": ("assistant",),
    "comparisons": ("user", "tool"),
    "prompts": ("user",),
    "questions": ("user",),
    "labelled": ("user", "tool"),
}


def fault(shape: Shape, record: Record) -> str:
    """Return why a record is of no use, or nothing."""
    if shape == "documents":
        return "" if record["text"] else "empty"
    turns = record[TURNS[shape]]
    if shape == "conversations" and turns and not any(turn["role"] == "assistant" for turn in turns):
        return "no_answer"
    if empty(turns):
        return "empty_turn"
    if not in_order(turns):
        return "bad_role_order"
    if turns[-1]["role"] not in ENDS[shape]:
        return "cut" if shape == "conversations" else "no_question"
    if not all(answers(shape, record)):
        return "empty_answer"
    return "no_reference" if shape == "questions" and not record["reference"] else ""


def empty(turns: Sequence[Record]) -> bool:
    """Whether there is no turn at all or one that says nothing; a tool call says something."""
    return not turns or any(not (turn["content"].strip() or turn["tool_calls"]) for turn in turns)


def in_order(turns: Sequence[Record]) -> bool:
    """Whether the system comes first if at all, user and assistant take turns, and tools answer
    after a call.
    """
    before = "start"
    for turn in turns:
        now = "call" if turn["role"] == "assistant" and turn["tool_calls"] else turn["role"]
        if now not in FOLLOWERS[before]:
            return False
        before = now
    return True
