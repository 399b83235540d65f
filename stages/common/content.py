"""What a record says: its text made uniform, and its identity by content."""

import hashlib
import json
import re
import unicodedata
from typing import Any

from stages.common.records import Record, Shape

INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff]")
WIDE_SPACES = re.compile("[\xa0\u2000-\u200a\u202f\u205f\u3000]")
LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
BLANK_LINES = re.compile("\n{3,}")
TURNS = {"conversations": "messages", "comparisons": "prompt", "prompts": "messages", "questions": "messages"}
IDENTITY = {
    "documents": ("text",),
    "conversations": ("messages", "tools"),
    "comparisons": ("prompt", "responses", "tools"),
    "prompts": ("messages",),
    "questions": ("messages", "group"),
}


def normalise(text: str) -> str:
    """Return `text` in NFC, with plain line ends and spaces, nothing invisible, no space at an end, no two blank lines.

    Indentation stays: code lives on it.
    """
    text = INVISIBLE.sub("", LINE_ENDS.sub("\n", unicodedata.normalize("NFC", text)))
    text = "\n".join(line.rstrip() for line in WIDE_SPACES.sub(" ", text).split("\n"))
    return BLANK_LINES.sub("\n\n", text).strip()


def key(text: str) -> str:
    """Return `text` so that two that read the same are equal: NFKC, case folded, one space between words."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digest(value: Any) -> bytes:
    """Return 128 bits of BLAKE2b over `value` as JSON."""
    return hashlib.blake2b(json.dumps(value, ensure_ascii=False).encode(), digest_size=16).digest()


def clean(shape: Shape, record: Record) -> Record:
    """Return the record with every text a model will read normalised; tool calls stay as they are."""
    changed = dict(record)
    if shape in TURNS:
        changed[TURNS[shape]] = [_clean_turn(turn) for turn in record[TURNS[shape]]]
    for name in ("text", "reference"):
        if isinstance(record.get(name), str):
            changed[name] = normalise(record[name])
    if shape == "comparisons":
        changed["responses"] = [normalise(response) for response in record["responses"]]
    return changed


def identity(shape: Shape, record: Record) -> bytes:
    """Return the digest of what makes two records of a shape the same."""
    return digest([record[name] for name in IDENTITY[shape]])


def user_turns(shape: Shape, record: Record) -> list[str]:
    """Return what the user says, in order; a document has no user."""
    turns = record[TURNS[shape]] or [] if shape in TURNS else []
    return [turn["content"] or "" for turn in turns if turn["role"] == "user"]


def split_digest(shape: Shape, record: Record) -> bytes:
    """Return the digest that decides a record's split: the first user turn, or a document's text.

    The same prompt therefore falls in the same split, in every shape.
    """
    first = user_turns(shape, record)[:1]
    return digest(key(first[0]) if first else record.get("text"))


def _clean_turn(turn: Record) -> Record:
    thought = turn["thought"]
    return turn | {"content": normalise(turn["content"]), "thought": normalise(thought) if thought else thought}
