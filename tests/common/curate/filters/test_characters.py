"""What is counted by looking characters up equals what the patterns find, on texts written by hand
and on random ones of letters that are easy to get wrong.
"""

import itertools
import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from stages.common.curate.filters import characters, gibberish, language, phrase_lists, spam
from stages.common.text.units import UNITS, units

HANDWRITTEN = json.loads((Path(__file__).parent / "handwritten.json").read_text(encoding="utf-8"))
ALPHABETS = [
    *("abcXYZ qu", "a1_ ", "0123aB", "é İKſß", "中的了龘锟斤拷烫屯", "\u3042ア한กÂ\u0080ï\u2013\ufffd"),
    *("👉★!！.,_-", "\U00020000\U0001f600²½٣", "aaaa bbbb  \x1c\x85\u3000\n"),
]
SIGNS = [
    *("call us 12", "text me ", "wx:abc12", "微信联系abcde", "$$ 5元", "50% off", "现价9", "买1送1", "全价", "八折"),
    *(
        "SALE NOW!!",
        "===>>>~~~***",
        "====>",
        "【热】",
        "★",
        "aa@b.com 12345 678",
        "电话 138 1234 5678",
        "成人一次 成人用",
    ),
    *("http://x.com", "Buy now ", "ı İ ﬁ ²", "a1b2_c", "1 2,3.4 万", "free win ", "tgabcde", "来电x:12------", "! ！"),
]
MOJIBAKE = gibberish.MOJIBAKE
HAN = re.compile(characters.SCRIPTS["Han"].pattern)


def texts() -> list[str]:
    chance = random.Random(5)
    found = [text for part in HANDWRITTEN.values() for several in part.values() for text in several]
    for _ in range(1_500):
        letters = "".join(chance.sample(ALPHABETS, chance.randint(1, 4)))
        found.append("".join(chance.choices(letters, k=chance.choice([0, 1, 2, 5, 19, 20, 21, 60, 200]))))
    return [*found, *("".join(chance.choices(SIGNS, k=chance.randint(1, 8))) for _ in range(1_500))]


TEXTS = texts()


def odd_pairs(text: str) -> float:
    words = re.findall(r"(?<![A-Za-z0-9_])[A-Za-z]{2,}(?![A-Za-z0-9_])", text.lower())
    letters = sum(map(len, words))
    if letters - len(words) < 20 or 2 * letters < len(re.sub(r"[\W\d_]+", "", text)):
        return 0.0
    common = {(row[0], second) for row in gibberish.FOLLOWERS.split() for second in row[2:]}
    pairs = [pair for word in words for pair in itertools.pairwise(word)]
    return sum(pair not in common for pair in pairs) / len(pairs)


def entropy(text: str) -> float:
    counts = Counter(re.sub(r"\s+", "", text.casefold()))
    if counts.total() < 20:
        return math.inf
    return -sum(number / counts.total() * math.log2(number / counts.total()) for number in counts.values())


def symbols(text: str) -> float:
    found = re.findall(characters.KINDS["symbol"], text)
    return len(found) / max(len(re.sub(r"\s+", "", text)), 1)


def mixed(text: str) -> float:
    tokens = len(re.findall(r"[^\W_]+", text))
    return len(gibberish.MIXED.findall(text)) / tokens if tokens >= 12 else 0.0


def word_length(text: str) -> float:
    if len(text) < 20 or any(characters.SCRIPTS[name].search(text) for name in ("Han", "Kana", "Hangul", "Thai")):
        return 0.0
    return sum(map(len, text.split())) / max(len(text.split()), 1)


def frequent(text: str) -> float:
    runs = HAN.findall(text)
    written = "".join(runs)
    if len(written) < 12 or len(written) < 12 * len(runs):
        return 1.0
    return sum(character in gibberish.FREQUENT for character in written) / len(written)


PATTERNS = [
    (gibberish.symbol_share, symbols),
    (gibberish.entropy, entropy),
    (gibberish.run_share, lambda text: sum(len(one[0]) for one in gibberish.RUNS.finditer(text)) / max(len(text), 1)),
    (gibberish.odd_pair_share, odd_pairs),
    (gibberish.mixed_share, mixed),
    (gibberish.mean_word_length, word_length),
    (gibberish.mojibake_share, lambda text: sum(map(len, MOJIBAKE.findall(text))) / max(len(text), 1)),
    (gibberish.frequent_han_share, frequent),
]


@pytest.mark.parametrize(("share", "pattern"), PATTERNS, ids=[share.__name__ for share, _ in PATTERNS])
def test_a_share_is_what_its_pattern_finds(share, pattern) -> None:  # type: ignore[no-untyped-def]
    found = [share(text) for text in TEXTS]
    assert found == pytest.approx([pattern(text) for text in TEXTS], rel=1e-9, abs=1e-12)
    assert len(set(found)) > 10


def test_signs_are_found_where_their_patterns_find_them() -> None:
    for text in TEXTS:
        reading = phrase_lists.read(text)
        lower, found = reading.lower, spam.signs(reading)
        han = len(phrase_lists.HAN.findall(text))
        size = max((len(reading.words) + han / spam.HAN_PER_WORD) / spam.WORDS_OF_A_SIGN, 1.0)
        handles, domains = len(spam.HANDLES.findall(lower)), len(spam.DOMAINS.findall(lower))
        links = max(lower.count("://"), domains) + len(spam.ADDRESSES.findall(lower))
        expected = {
            "prices": len(spam.PRICES.findall(lower)),
            "contacts": links + len(spam.NUMBERS.findall(lower)) + handles,
            "handles": handles,
            "goods": reading.count("goods") - len(spam.DOSED.findall(lower)),
            "exclaimed": sum(min(len(run), 3) for run in spam.EXCLAIMED.findall(text)) / 3,
            "shouted": len(spam.SHOUTED.findall(text)),
            "decoration": len(spam.DECORATION.findall(text)) / 2,
        }
        assert {sign: found[sign] for sign in expected} == {sign: n / size for sign, n in expected.items()}, text


def test_units_and_words_of_ascii_are_those_of_the_patterns() -> None:
    plain = [text for text in TEXTS if text.isascii()]
    assert len(plain) > 100
    for text in plain:
        assert units(text) == UNITS.findall(text.lower())
        assert phrase_lists.read(text).words == phrase_lists.WORDS.findall(text.lower())


def test_the_letters_of_ascii_are_counted_as_latin() -> None:
    for text in (text for text in TEXTS if text.isascii()):
        assert language.script_weights(text)["Latin"] == len(re.findall("[A-Za-z]", text))
