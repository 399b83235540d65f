"""What a short question is about: its words without those that may be said or left out, to tell
the same question in other words from another one.

In a question of fifteen words another article is as large a change as another town. So the words of
one question have to be among the other's, which may have a few more, but no number and no word that
denies.
"""

from collections import Counter
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

from stages.common.curate.dedup.shingles import EVEN, Sets
from stages.common.text.units import UNITS, units

OF_SIDE, OF_BOTH = 0.7, 0.8
"""Shares of the threshold that each side of a short conversation has to reach, and both."""
MOST_UNITS = 64
"""Longer questions are alike by their shingles when they say the same."""
MOST_MORE = 3
"""Words that one question may have beyond the other's."""
LEFT_OUT = frozenset(
    UNITS.findall(
        "a an the this that these those is are am was were be been being do does did have has had"
        " will would could can please hi hello hey dear thanks thank you kindly just really very quite so"
        " well ok okay also then lot much many"
        " 的了吗呢吧啊呀嘛请您你好谢么个非常感"
    )
)
"""Words, and Chinese characters, that are said or not without another meaning."""
DENYING = frozenset(
    UNITS.findall(
        "not no never nor neither none without except cannot don didn doesn isn aren wasn wouldn couldn unlike"
        " 不没沒无無非别未勿除"
    )
)


def of(questions: Sequence[str]) -> Sets:
    """Return the hashes of each question's words, sorted; the lowest bit marks a number or a word
    that denies, each time it stands there. A long question has none.
    """
    found = [_words(question) for question in questions]
    ends = np.cumsum([len(words) for words in found])
    return Sets(np.array([word for words in found for word in words], np.uint32), ends.astype(np.int64))


def _words(question: str) -> list[int]:
    parts = units(question)
    if len(parts) > MOST_UNITS:
        return []
    plain = {_hash(part) & int(EVEN) for part in parts if part not in LEFT_OUT and not _weighs(part)}
    heavy = Counter(part for part in parts if _weighs(part))
    return sorted(plain | {_hash(f"{part} {times}") | 1 for part, number in heavy.items() for times in range(number)})


def _weighs(word: str) -> bool:
    return word in DENYING or word.isdigit()


def _hash(word: str) -> int:
    return crc32(word.encode("utf-8", "surrogatepass"))


def alike(
    similarities: npt.NDArray[np.float64],
    threshold: float,
    words: Sets,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Return which pairs of conversations say the same, by `similarities` [pairs, 3] of
    `shingles.sided_similarities`; `first` and `second` are places in `words`.

    Long questions do where both sides reach the threshold. Of short ones the words have to be the
    same, so that their sides only have to come near it.
    """
    lowest = similarities.min(axis=1)
    sizes = words.sizes()
    short = (sizes[first] > 0) & (sizes[second] > 0)
    near = (lowest >= OF_SIDE * threshold) & (similarities[:, 2] >= OF_BOTH * threshold)
    nearly = np.flatnonzero(short & near)
    found: npt.NDArray[np.bool_] = ~short & (lowest >= threshold)
    if len(nearly):
        found[nearly] = same_question(words.take(first[nearly]), words.take(second[nearly]))
    return found


def same_question(some: Sets, others: Sets) -> npt.NDArray[np.bool_]:
    """Return which of some questions ask what the other at its place asks."""
    return np.array([_same(*pair) for pair in zip(_each(some), _each(others), strict=True)], dtype=bool)


def _each(words: Sets) -> list[frozenset[int]]:
    starts = [0, *words.ends[:-1].tolist()]
    return [frozenset(words.values[start:end].tolist()) for start, end in zip(starts, words.ends.tolist(), strict=True)]


def _same(first: frozenset[int], second: frozenset[int]) -> bool:
    less, more = sorted((first, second), key=len)
    left = more - less
    return bool(less) and less <= more and len(left) <= MOST_MORE and not any(word & 1 for word in left)
