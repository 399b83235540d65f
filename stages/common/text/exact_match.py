"""When an answer counts as right."""

import re
import unicodedata

MINUS = "\u2212"
NEGATIVE = re.compile(r"-\.?\d")


def normalise(text: str) -> str:
    """Return text as compared: NFKC, lower case, single spaces, no punctuation at either end but a
    number's minus.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).replace(MINUS, "-").casefold().split())
    start, end = 0, len(folded)
    while start < end and _is_mark(folded[start]) and not NEGATIVE.match(folded, start):
        start += 1
    while end > start and _is_mark(folded[end - 1]):
        end -= 1
    return folded[start:end]


def matches(answer: str, reference: str) -> bool:
    """Whether the answer is the reference, exactly, after `normalise`; one that is all punctuation,
    as it is.
    """
    wanted = normalise(reference)
    return normalise(answer) == wanted if wanted else answer.strip() == reference.strip()


def _is_mark(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] == "P"
