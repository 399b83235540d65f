"""Texts made uniform: as a model will read them, and as they are compared."""

import re
import unicodedata

from stages.common.core.records import TURNS, Record, Shape

INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff]")
WIDE_SPACES = re.compile("[\xa0\u2000-\u200a\u202f\u205f\u3000]")
LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
INDENTED = re.compile(r"\A[ \t]+\S.*\n(?:.*\n)*?[ \t]+\S")
BLANK_LINES = re.compile("\n{3,}")


def normalise(text: str) -> str:
    """Return `text` in NFC, with plain line ends and spaces, nothing invisible, no space at an end,
    no two blank lines.

    Indentation stays: code lives on it. The first line's is one where a later line has some too.
    """
    text = INVISIBLE.sub("", LINE_ENDS.sub("\n", unicodedata.normalize("NFC", text)))
    text = "\n".join(line.rstrip() for line in WIDE_SPACES.sub(" ", text).split("\n"))
    text = BLANK_LINES.sub("\n\n", text).strip("\n")
    return text if INDENTED.search(text) else text.strip()


def key(text: str) -> str:
    """Return `text` so that two that read the same are equal: NFKC, case folded, one space between
    words.
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def clean(shape: Shape, record: Record) -> Record:
    """Return the record with every text a model will read normalised; tool calls stay as
    they are.
    """
    changed = dict(record)
    if shape in TURNS:
        changed[TURNS[shape]] = [_clean_turn(turn) for turn in record[TURNS[shape]]]
    for name in ("text", "reference"):
        if isinstance(record.get(name), str):
            changed[name] = normalise(record[name])
    if shape == "comparisons":
        changed["responses"] = [normalise(response) for response in record["responses"]]
    if shape == "labelled":
        changed["response"] = normalise(record["response"])
    return changed


def _clean_turn(turn: Record) -> Record:
    thought = turn["thought"]
    return turn | {"content": normalise(turn["content"]), "thought": normalise(thought) if thought else thought}
