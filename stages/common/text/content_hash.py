"""What a record is by its content: digests that tell records apart, and chance that comes from
content.

The same text meets the same fate in every run, order and number of workers.
"""

import hashlib
import json
from typing import Any

from stages.common.core.records import TURNS, Record, Shape
from stages.common.text.normalisation import key

BITS = 52  # more, and the largest draw would round to 1
IDENTITY = {
    "documents": ("text",),
    "conversations": ("messages", "tools"),
    "comparisons": ("prompt", "responses", "tools"),
    "prompts": ("messages",),
    "questions": ("messages", "group"),
    "labelled": ("prompt", "response", "desirable", "tools"),
}


def digest(value: Any) -> bytes:
    """Return 128 bits of BLAKE2b over `value` as JSON."""
    return hashlib.blake2b(json.dumps(value, ensure_ascii=False).encode(), digest_size=16).digest()


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


def draw(purpose: str, content: str | bytes) -> float:
    """Return a number in (0, 1), uniform over contents; draws for other purposes (up to 16 bytes)
    are independent.
    """
    data = content.encode() if isinstance(content, str) else content
    digest = hashlib.blake2b(data, digest_size=8, person=purpose.encode()).digest()
    return ((int.from_bytes(digest, "big") >> (64 - BITS)) + 0.5) / 2**BITS
