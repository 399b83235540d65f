"""How much of a text is what surrounds the text of a web page: notices, menus, navigation, fill-in
text, scripts.
"""

import re

from stages.common.curate.filters.phrase_lists import HAN, Reading, read

FEWEST_SIGNS = 3
FEWEST_ITEMS = 6
SENTENCES = re.compile(r"[^\n.!?。！？|；]+[\n.!?。！？|；]*")
FILL_IN = re.compile(
    r"\b(?:lorem|ipsum|dolor|sit|amet|consectetur|adipiscing|elit|sed|eiusmod|tempor|incididunt|labore|magna|aliqua|quis"
    r"|nostrud|exercitation|ullamco|laboris|nisi|aliquip|commodo|consequat|duis|aute|irure|reprehenderit|voluptate|velit"
    r"|esse|cillum|fugiat|nulla|pariatur|excepteur|sint|occaecat|cupidatat|proident|culpa|officia|deserunt|mollit|anim|est"
    r"|laborum|enim|minim|veniam|ut|et|ex|ea|in|do|ad|id|eu|non|sunt|qui)\b",
    re.IGNORECASE,
)
FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
SCRIPT = re.compile(
    r"\b(?:window|document|jQuery|googletag|dataLayer|console)\.\w|\bfunction\s?\w*\s?\(|\$\(|\bvar \w+\s?="
    r"|addEventListener|getElementBy|@media\b|@import\b|!important|\{\s?[a-z-]+\s?:\s?[^{};]{1,60};|:\s?\d+(?:px|em|%);"
    r"|</?(?:div|span|script|style|td|tr|li)\b"
    r"|\bdisplay\s?:\s?none|&(?:nbsp|amp|gt|lt|quot|#\d+);"
)


SCRIPT_MARKS = ("{", "</", "&", "function", "document.", "window.", "$(")


def fill_in_share(text: str) -> float:
    """Return the share of words that are fill-in Latin, where `lorem ipsum` stands (C4 drops every
    page with it).
    """
    if "lorem ipsum" not in text.casefold():
        return 0.0
    return len(FILL_IN.findall(text)) / max(len(text.split()), 1)


def script_share(text: str) -> float:
    """Return the share of characters in lines of a page's scripts and styles; code between fences
    is meant to be read.

    C4 drops every page with a curly bracket; here a line must show more than that, and code of
    other kinds stays.
    """
    if not any(mark in text for mark in SCRIPT_MARKS):
        return 0.0
    lines = [line for line in FENCED.sub("", text).split("\n") if line.strip()]
    marked = [line for line in lines if SCRIPT.search(line) or line.strip() in ("{", "}", "};", "});", "})();")]
    return sum(map(len, marked)) / max(len(text), 1) if len(SCRIPT.findall(text)) >= FEWEST_SIGNS else 0.0


def notice_share(reading: Reading) -> float:
    """Return the share of characters in sentences with a notice's phrase, where there are three
    different phrases.
    """
    if len(reading.found["notices"]) < FEWEST_SIGNS:
        return 0.0
    sentences = SENTENCES.findall(reading.text)
    noticed = (sentence for sentence in sentences if read(sentence).found["notices"])
    return sum(map(len, noticed)) / sum(map(len, sentences))


def menu_share(reading: Reading) -> float:
    """Return the share of letters that belong to items of menus and navigation, where there are six
    different ones.
    """
    present = sorted(reading.found["menus"], key=len, reverse=True)  # the longest first: none is counted twice
    if len(present) < FEWEST_ITEMS:
        return 0.0
    words = [word for word in reading.words if not word.isdigit()]
    joined, lower = f" {' '.join(words)} ", reading.lower
    letters = len(HAN.findall(lower)) + sum(map(len, words))
    for phrase in present:
        if phrase.isascii():
            joined = joined.replace(f" {phrase} ", "  ")
        else:
            lower = lower.replace(phrase, "")
    return 1 - (len(HAN.findall(lower)) + len(joined.replace(" ", ""))) / max(letters, 1)
