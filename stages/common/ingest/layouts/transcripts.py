"""Talk written as one text: HH-RLHF's and BELLE's Human and Assistant, ChatGLM's rounds of
问 and 答, MOSS's marks, and what chat templates write (ChatML, Llama, Alpaca, …).
"""

import re

from stages.common.core.records import Record, message
from stages.common.ingest.layouts import moss
from stages.common.ingest.layouts.fields import Malformed, first, string
from stages.common.ingest.layouts.meaning import answer
from stages.common.ingest.layouts.turns import ROLES, SYSTEM_KEYS, with_system

SPEAKER_OF_PARAGRAPH = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant) ?[:：]")
SPEAKER_OF_LINE = re.compile(r"(?:\A\s*|\n)(Human|Assistant) ?[:：]")
KEYS = ("plain_text", "transcript", "text")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
ROUND = re.compile(r"\[Round \d+\]\s*问[:：]")
ANSWER = re.compile(r"\n\s*答[:：]")
START_HUMAN = re.compile(r"\s*Human ?[:：]")
START_ROUND = re.compile(r"\s*\[Round \d+\]\s*问[:：]")
START_MOSS = re.compile(r"\s*(?:<\|Human\|>|\[Human\])\s*:")
PREAMBLE = re.compile(r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|\[gMASK\]<sop>|Below is an instruction that [^#]*)?\s*")
ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<s>")
MARKS = (
    re.compile(r"<\|im_start\|>\s*(\w+)[ \t]*\n?"),
    re.compile(r"<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\s*"),
    re.compile(r"<start_of_turn>\s*(\w+)[ \t]*\n?"),
    re.compile(r"<\|(system|user|assistant|observation)\|>\s*"),
    re.compile(r"###\s*(Human|User|Assistant|System|Instruction|Input|Response)\s*[:：]\s*"),
)
"""What templates write before each message; the name is its role."""
RENDERED_ROLES = ROLES | {"instruction": "user", "input": "input", "response": "assistant"}
INST, INST_END = re.compile(r"\[INST\]"), "[/INST]"
SYS = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)


def is_transcript(text: str) -> bool:
    """Whether a text is a conversation written down."""
    if START_HUMAN.match(text):
        return any(found[1] == "Assistant" for found in _speaker(text).finditer(text))
    return bool(START_ROUND.match(text) or START_MOSS.match(text)) or _marks(text) is not None


def messages(text: str) -> list[Record]:
    """Return the messages of a transcript; an answer left empty at its end is still to come. Raises
    Malformed.
    """
    said = spoken(text)
    said = said[:-1] if said[-1] == message("assistant", "") else said
    if not said:
        raise Malformed("bad transcript", "nobody says anything")
    return [answer(one["content"], one["thought"]) if _is_plain_answer(one) else one for one in said]


def spoken(text: str) -> list[Record]:
    """Return every message of a transcript, at least one. Raises Malformed."""
    if START_ROUND.match(text):
        return _rounds(text)
    if START_MOSS.match(text):
        return moss.parts(text)
    marks = _marks(text)
    if marks is None:
        return _speakers(text)
    return _instructions(text) if marks is INST else _rendered(text, marks)


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


def _is_plain_answer(said: Record) -> bool:
    return said["role"] == "assistant" and not said["tool_calls"]


def _marks(text: str) -> re.Pattern[str] | None:
    """Return the marks of the template that a text was rendered with, or None; an answer is in
    it.
    """
    start = text[:1000]
    begin = PREAMBLE.match(start)
    at = begin.end() if begin else 0
    if start.startswith("[INST]", at):
        return INST if INST_END in text else None
    for marks in MARKS:
        if marks.match(start, at):
            roles = [RENDERED_ROLES.get(found[1].lower()) for found in marks.finditer(text)]
            return marks if "assistant" in roles and "user" in roles and None not in roles else None
    return None


def _rendered(text: str, marks: re.Pattern[str]) -> list[Record]:
    """Split at a template's marks; what Alpaca writes under Input belongs to the instruction."""
    found = list(marks.finditer(text))
    ends = [*(one.start() for one in found[1:]), len(text)]
    said: list[Record] = []
    for one, end in zip(found, ends, strict=True):
        role, content = RENDERED_ROLES[one[1].lower()], _without_end(text[one.end() : end])
        if role == "input" and said and said[-1]["role"] == "user":
            said[-1] = message("user", f"{said[-1]['content']}\n{content}" if content else said[-1]["content"])
        elif role in ("input", "call"):
            raise Malformed("bad transcript", f"{one[1]} does not follow an instruction")
        else:
            said.append(message(role, content))
    return said


def _instructions(text: str) -> list[Record]:
    """Split at Llama 2's and Mistral's `[INST]` and `[/INST]`, with Llama's `<<SYS>>` inside."""
    said: list[Record] = []
    for part in INST.split(text)[1:]:
        asked, _, answered = part.partition(INST_END)
        system = SYS.match(asked)
        if system:
            said.append(message("system", system[1].strip()))
            asked = asked[system.end() :]
        said += [message("user", asked.strip()), message("assistant", _without_end(answered))]
    return said


def _without_end(text: str) -> str:
    """Return what is said without the marks that end it."""
    text = text.strip()
    while end := next((mark for mark in ENDS if text.endswith(mark)), ""):
        text = text.removesuffix(end).rstrip()
    return text
