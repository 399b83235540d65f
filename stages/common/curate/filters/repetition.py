"""How much of a text says again what it said before, after Gopher (Rae et al. 2021, table A1), counted by datatrove.

Gopher's shares of 2- to 10-grams are made for web pages. Lists of questions, tables and dictionaries repeat short
phrases by nature, so here short ones count only where one phrase fills the text, and otherwise long ones.
"""

import re
from collections import Counter
from collections.abc import Sequence

from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate, find_duplicates

PHRASE, PASSAGE = 3, 15
SHORTEST_LINE = 6
SENTENCES = re.compile(r"[^\n.!?。！？；;]+[.!?。！？；;]*")


def line_share(text: str) -> float:
    """Return the share of characters in lines, or in sentences, that stood before; very short ones may come again."""
    return max(_again(text.split("\n")), _again(SENTENCES.findall(text)))


def phrase_share(units: Sequence[str]) -> float:
    """Return the share of characters in the most frequent phrase of three units; above 1 where it overlaps itself."""
    counts = Counter(zip(*(units[start:] for start in range(PHRASE)), strict=False))
    phrase, number = max(counts.items(), key=lambda item: item[1], default=((), 0))
    return number * sum(map(len, phrase)) / sum(map(len, units)) if number > 2 else 0.0


def passage_share(units: list[str]) -> float:
    """Return the share of characters in passages of fifteen units that stood before."""
    return find_all_duplicate(units, PASSAGE) / max(sum(map(len, units)), 1)


def _again(parts: Sequence[str]) -> float:
    lines = [part.strip() for part in parts]
    _, characters = find_duplicates([line for line in lines if len(line) >= SHORTEST_LINE])
    return characters / max(sum(map(len, lines)), 1)
