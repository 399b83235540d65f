"""Signs that a text is no language: symbols, one character over and over, letter salad, rare
characters, mojibake.

Each is a share or a count, measured on the whole text; `heuristics.Rules` says how much is too
much.
"""

import math
import re
from functools import cache

import numpy as np

from stages.common.curate.filters import characters
from stages.common.curate.filters.characters import Flags

FEWEST_CHARACTERS = 20
FEWEST_PAIRS = 20
FEWEST_HAN = 12
FEWEST_WORDS = 12

FOLLOWERS = (
    "a:bcdfghiklmnprstuvwxy b:abeijlorstu c:acehiklorstuy d:adegilmnorsuvy e:abcdefghilmnopqrstuvwxy f:aefilortu "
    "g:aeghilnorsuy h:aeiortuy i:abcdefgklmnoprstvz j:aeou k:aeilnosuy l:adefiklmostuvy m:abeimopsuy "
    "n:acdefgiklnostuvy o:abcdefgiklmnoprstuvwxy p:aehiloprstu q:u r:abcdefgiklmnoprstuvy s:acehiklmnopstuwy "
    "t:acehilmorstuwy u:abcdefgilmnprst v:aeioy w:aehinors x:aceiptuy y:aceilmops z:aeioz"
)
"""The letters that commonly follow each letter in English words: 97 % of pairs in running text, 45
% of random ones.
"""

FREQUENT = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方"
    "多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使"
    "情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化"
    "老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反"
    "受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权"
    "思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运"
    "這個們來為國說時會對過發後裡裏種經麼學現當沒動還進樣開從實軍無與長機業將兩間問戰應頭體見產話內給門關點員兒東聲論處義幾條"
    "係氣題爾變總電數報場結資計統區隊決馬書聽許權難達強則設記類據張規萬術領確傳師觀讓識帶導爭運認務邊"
)
"""The characters a Chinese text is mostly made of, simplified and traditional."""

RUNS = re.compile(r"([^\W\d_])\1{3,}")
MIXED = re.compile(r"(?<![^\W_])(?:[A-Za-z]+\d|\d+[A-Za-z])[A-Za-z0-9]*(?![^\W_])")
MOJIBAKE = re.compile("[\u00c2-\u00ef][\u0080-\u00bf\u0152-\u0178\u2013-\u2122]|\ufffd|锟斤拷|烫烫|屯屯")
A, Z = ord("a"), ord("z")
TO_LOWER = 0x20
ASCII_SPACES = [ord(space) for space in re.findall(characters.KINDS["space"], "".join(map(chr, range(128))))]


def symbol_share(text: str) -> float:
    """Return the share of characters other than spaces that are neither letters, digits nor common
    punctuation.
    """
    found = characters.of(text)
    return found.count("symbol") / max(len(found) - found.count("space"), 1)


def entropy(text: str) -> float:
    """Return the entropy of the characters, spaces aside, in bits; infinite for a text too short to
    tell.
    """
    if text.isascii():
        counts = np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=Z + 1)
        counts[ASCII_SPACES] = 0
        counts[A : Z + 1] += counts[A - TO_LOWER : Z + 1 - TO_LOWER]
        counts[A - TO_LOWER : Z + 1 - TO_LOWER] = 0
        counts = counts[counts > 0]
    else:
        found = characters.Characters(text.casefold())
        counts = np.unique(found.codes[~found.are("space")], return_counts=True)[1]
    total = counts.sum()
    if total < FEWEST_CHARACTERS:
        return math.inf
    shares = counts / total
    return float(max(-(shares * np.log2(shares)).sum(), 0.0))


def run_share(text: str) -> float:
    """Return the share of characters in runs of four and more of the same letter."""
    found = characters.of(text)
    same = found.codes[1:] == found.codes[:-1]
    if not (same[2:] & same[1:-1] & same[:-2]).any():
        return 0.0
    return sum(len(match[0]) for match in RUNS.finditer(text)) / max(len(text), 1)


def odd_pair_share(text: str) -> float:
    """Return the share of neighbouring letters that English hardly ever has side by side; 0 where
    few are Latin.

    Letters in a word with a digit or an underscore do not count.
    """
    found = characters.of(text) if text.isascii() else characters.Characters(text.lower())
    latin, joined = found.are("latin"), found.are("joined")
    if np.count_nonzero(joined) > np.count_nonzero(latin):
        latin &= ~_mixed_with(joined, joined & ~latin)
    pairs = latin[1:] & latin[:-1]
    number = int(np.count_nonzero(pairs))
    letters = number + characters.runs(pairs)
    if number < FEWEST_PAIRS or 2 * letters < characters.of(text).count("letter"):
        return 0.0
    first = np.flatnonzero(pairs)
    lower = (found.codes | TO_LOWER) - A
    common = _common_pairs()[lower[first], lower[first + 1]]
    return (number - int(np.count_nonzero(common))) / number


def mixed_share(text: str) -> float:
    """Return the share of tokens that mix letters and digits, as keys and dumps do."""
    found = characters.of(text)
    if not found.any("digit"):
        return 0.0
    latin, digits = found.are("latin"), found.are("digit")
    if not (latin[1:] & digits[:-1] | latin[:-1] & digits[1:]).any():
        return 0.0
    tokens = characters.runs(digits | found.are("letter"))
    return len(MIXED.findall(text)) / tokens if tokens >= FEWEST_WORDS else 0.0


def mean_word_length(text: str) -> float:
    """Return the mean length of what stands between spaces; 0 for a text in a script that writes
    none.
    """
    found = characters.of(text)
    if len(text) < FEWEST_CHARACTERS or found.any("unspaced"):
        return 0.0
    written = ~found.are("space")
    return int(np.count_nonzero(written)) / max(characters.runs(written), 1)


def mojibake_share(text: str) -> float:
    """Return the share of characters that only a wrong decoding leaves behind."""
    if not characters.of(text).any("damaged"):
        return 0.0
    return sum(map(len, MOJIBAKE.findall(text))) / max(len(text), 1)


def rare_han_share(text: str) -> float:
    """Return the share of Chinese characters in neither the first level of GB 2312 nor that of
    Big5.
    """
    found = characters.of(text)
    number = found.count("han")
    if number < FEWEST_HAN:
        return 0.0
    return (number - _known(found, _first_levels())) / number


def frequent_han_share(text: str) -> float:
    """Return the share of the most frequent Chinese characters where they run on without
    punctuation, 1 elsewhere.

    Lists of terms have few of them too, but separate their terms.
    """
    found = characters.of(text)
    number = found.count("han")
    if number < FEWEST_HAN or number < characters.runs(found.are("han")) * FEWEST_HAN:
        return 1.0
    return _known(found, _frequent()) / number


def _known(found: characters.Characters, among: Flags) -> int:
    """Return how many Chinese characters are among those flagged by code point."""
    han = found.codes[found.are("han")]
    return int(np.count_nonzero(among[han[han < len(among)]]))


def _mixed_with(runs: Flags, marked: Flags) -> Flags:
    """Return which of the characters in runs share theirs with a marked one."""
    number = np.cumsum(np.append(runs[:1], runs[1:] & ~runs[:-1]))
    holds = np.zeros(len(runs) + 1, bool)
    holds[number[marked]] = True
    return holds[number] & runs


def _flags(characters: str) -> Flags:
    found = np.zeros(max(map(ord, characters)) + 1, bool)
    found[[ord(character) for character in characters]] = True
    return found


@cache
def _frequent() -> Flags:
    return _flags(FREQUENT)


@cache
def _common_pairs() -> Flags:
    table = np.zeros((26, 26), bool)
    for row in FOLLOWERS.split():
        for second in row[2:]:
            table[ord(row[0]) - A, ord(second) - A] = True
    return table


@cache
def _first_levels() -> Flags:
    simplified = bytes(byte for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF) for byte in (high, low))
    lows = [*range(0x40, 0x7F), *range(0xA1, 0xFF)]
    traditional = bytes(byte for high in range(0xA4, 0xC7) for low in lows for byte in (high, low))
    return _flags(simplified.decode("gb2312", "ignore") + traditional.decode("big5", "ignore"))
