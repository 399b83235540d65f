"""When an answer counts as right."""

import unicodedata


def normalise(text: str) -> str:
    """Return text as compared: NFKC, lower case, single spaces, no punctuation at either end."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    start, end = 0, len(folded)
    while start < end and _is_mark(folded[start]):
        start += 1
    while end > start and _is_mark(folded[end - 1]):
        end -= 1
    return folded[start:end]


def matches(answer: str, reference: str) -> bool:
    """Whether the answer is the reference, exactly, after `normalise`."""
    return normalise(answer) == normalise(reference)


def _is_mark(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] == "P"
