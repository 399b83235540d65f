"""The units in which texts are compared: words, numbers, and each Chinese, Japanese or Korean
character by itself.
"""

import re
import unicodedata

UNITS = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
    "|[^\\W\\d_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
    "|\\d+"
)


TO_SPACES = {code: " " for code in range(128) if not chr(code).isalnum()}


def units(text: str) -> list[str]:
    """Return the units of `text` in NFKC, case folded; spaces and punctuation fall away."""
    if text.isascii():
        return ascii_units(text.lower())
    return UNITS.findall(unicodedata.normalize("NFKC", text).casefold())


def ascii_units(lower: str) -> list[str]:
    """Return the words and numbers of a text of ASCII in lower case."""
    words = lower.translate(TO_SPACES).split()
    if words and not "".join(words).isalpha():
        return [unit for word in words for unit in ((word,) if word.isalpha() else UNITS.findall(word))]
    return words
