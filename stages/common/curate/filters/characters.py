"""What kinds of characters a text is made of, looked up once for all that is counted in it.

A kind is a pattern of one character, so counts equal those of the patterns; a lookup in a table
takes a tenth of their time.
"""

import re
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]
BASIC, UNICODE = 0x10000, 0x110000
LATIN = "Latin"
SCRIPTS = {
    "Han": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"),
    "Kana": re.compile("[\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff9d]+"),
    "Hangul": re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]+"),
    LATIN: re.compile("[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]+"),
    "Cyrillic": re.compile("[\u0400-\u052f]+"),
    "Greek": re.compile("[\u0370-\u03ff\u1f00-\u1fff]+"),
    "Arabic": re.compile("[\u0600-\u06ff\u0750-\u077f]+"),
    "Hebrew": re.compile("[\u0590-\u05ff]+"),
    "Indic": re.compile("[\u0900-\u0dff]+"),
    "Thai": re.compile("[\u0e00-\u0e7f]+"),
}
KINDS = {
    "space": r"\s",
    "digit": r"\d",
    "letter": r"[^\W\d_]",
    "symbol": r"[^\w\s.,;:!?'\"()，。；：！？、“”‘’（）《》-]|_",
    "latin": "[A-Za-z]",
    "upper": "[A-Z]",
    "joined": "[A-Za-z0-9_]",
    "han": SCRIPTS["Han"].pattern.rstrip("+"),
    "chinese": "[\u3400-\u4dbf\u4e00-\u9fff]",
    "unspaced": "|".join(SCRIPTS[name].pattern.rstrip("+") for name in ("Han", "Kana", "Hangul", "Thai")),
    "markup": r"[\d_#*|`=@<>{}\[\]\\/~^]",
    "damaged": "[\u00c2-\u00ef\ufffd锟烫屯]",
    "decoration": "[★☆◆◇●▶►▷◀◄✔✅✓❤♥☎✆➤➡👉👇👆🔥💰💵💸🎁🎉🎊💥⚡🚀🤑💯📞📲🆓]",
}
"""Kinds of characters by name; `damaged` is how text begins that was decoded wrongly."""
BITS = {name: np.uint16(1 << place) for place, name in enumerate(KINDS)}


class Characters:
    """The characters of a text by kind."""

    def __init__(self, text: str) -> None:
        self.codes = codes(text)
        beyond = len(self.codes) > 0 and self.codes.max() >= BASIC
        self.kinds = _table(UNICODE if beyond else BASIC)[self.codes]
        self._present: np.uint16 | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def are(self, kind: str) -> Flags:
        """Return which characters are of a kind."""
        return (self.kinds & BITS[kind]) != 0

    def count(self, kind: str) -> int:
        """Return how many characters are of a kind."""
        return int(np.count_nonzero(self.kinds & BITS[kind])) if self.any(kind) else 0

    def any(self, kind: str) -> bool:
        """Whether a character is of a kind."""
        if self._present is None:
            self._present = np.bitwise_or.reduce(self.kinds)
        return bool(self._present & BITS[kind])


@lru_cache(maxsize=1)
def of(text: str) -> Characters:
    """Return the characters of a text; those of the last one are at hand."""
    return Characters(text)


def codes(text: str) -> npt.NDArray[np.uint32]:
    """Return the code points of a text."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint32)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def runs(flags: Flags) -> int:
    """Return how many runs of set flags there are."""
    return int(np.count_nonzero(flags[1:] > flags[:-1])) + int(flags[:1].any())


@cache
def _table(size: int) -> npt.NDArray[np.uint16]:
    """Return the kinds of every code point below `size`."""
    everything = "".join(map(chr, range(size)))
    table = np.zeros(size, np.uint16)
    for name, pattern in KINDS.items():
        for match in re.finditer(f"(?:{pattern})+", everything):
            table[match.start() : match.end()] |= BITS[name]
    return table
