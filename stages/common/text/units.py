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


def units(text: str) -> list[str]:
    """Return the units of `text` in NFKC, case folded; spaces and punctuation fall away."""
    return UNITS.findall(unicodedata.normalize("NFKC", text).casefold())
