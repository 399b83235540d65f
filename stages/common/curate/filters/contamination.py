"""Decontamination after GPT-3 (Brown et al. 2020, appendix C): n-grams that a text shares with a
test question.

An n-gram is 13 units (`units.py`: words, single Chinese characters). A question of fewer than two
n-grams' length leaks where it stands whole: of templates such as "Which of the planets is number {}
counted from the sun?" most 13-grams are without what is asked. A longer one leaks where half of its
n-grams stand that no other question has. One of a word or two, as "Hello!", leaks only as a whole
turn of the user or line of a document.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from stages.common.core.params import StageParams
from stages.common.core.records import TURNS, Record, Shape, answers
from stages.common.curate.dedup.hashing import Hashes
from stages.common.text import content_hash
from stages.common.text.units import units

BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 2**64)
POWERS_KEPT = 4_096
LARGEST_FILTER = 26  # bits: 64 MB
Counts = NDArray[np.int32]


class Contamination(StageParams):
    """Decontamination: records that hold a test question are dropped."""

    ngram: PositiveInt = 13
    """Units (words, or Chinese characters) in an n-gram."""
    shortest: PositiveInt = 4
    """Units from which a question is found inside a text; a shorter one must be a whole turn or
    line.
    """
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a long question's own n-grams that make a leak."""


@dataclass(frozen=True)
class Index:
    """The questions' n-grams: `hashes` [n] sorted, `owners` [n] the question of each, `needed`
    [questions] to leak.
    """

    ids: list[str]
    needed: Counts
    hashes: Hashes
    owners: Counts
    lengths: list[int]
    shortest: int

    @classmethod
    def build(cls, questions: Iterable[Record], settings: Contamination) -> "Index":
        """Return the index of the last user turn of each question; of two that read the same, the
        first.
        """
        sequences = [
            (record["id"], units("".join(content_hash.user_turns("questions", record)[-1:]))) for record in questions
        ]
        first: dict[tuple[str, ...], str] = {}
        for name, asked in sequences:
            first.setdefault(tuple(asked), name)
        first.pop((), None)
        grams = [_grams(asked, settings.ngram) for asked in first]
        hashes = np.concatenate([np.zeros(0, np.uint64), *grams])
        owners = np.repeat(np.arange(len(grams), dtype=np.int32), np.array([len(own) for own in grams], int))
        _, kinds, times = np.unique(hashes, return_inverse=True, return_counts=True)
        needed, kept = _rules([len(asked) for asked in first], owners, times[kinds] > 1, settings)
        order = np.argsort(hashes[kept], kind="stable")
        lengths = sorted({min(len(asked), settings.ngram) for asked in first})
        return cls([*first.values()], needed, hashes[kept][order], owners[kept][order], lengths, settings.shortest)

    def save(self, file: Path) -> None:
        """Write plain arrays (.npz)."""
        text = np.frombuffer(json.dumps([self.ids, self.lengths, self.shortest]).encode(), np.uint8)
        with file.open("wb") as handle:
            np.savez(handle, text=text, needed=self.needed, hashes=self.hashes, owners=self.owners)

    @classmethod
    def load(cls, file: Path) -> "Index":
        """Return what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            ids, lengths, shortest = json.loads(arrays["text"].tobytes())
            return cls(ids, arrays["needed"], arrays["hashes"], arrays["owners"], lengths, shortest)

    @cached_property
    def _first_bits(self) -> tuple[np.uint64, NDArray[np.bool_]]:
        bits = min(len(self.hashes).bit_length() + 7, LARGEST_FILTER)
        shift, table = np.uint64(64 - bits), np.zeros(2**bits, bool)
        table[self.hashes >> shift] = True
        return shift, table

    def among(self, grams: Hashes) -> Hashes:
        """Return those that may be n-grams of a question: nearly all others are ruled out by their
        first bits.
        """
        shift, table = self._first_bits
        return grams[table[grams >> shift]]


def find(index: Index, shape: Shape, record: Record) -> str:
    """Return the id of the first question that a record holds, or nothing."""
    for role, text in texts(shape, record):
        for question in _held(index, text):
            if index.needed[question] or _is_asked(index, question, role, text):
                return index.ids[question]
    return ""


def texts(shape: Shape, record: Record) -> Iterator[tuple[str, str]]:
    """Yield role and text of all that is said: a document, every turn, and the answers beside
    them.
    """
    if shape == "documents":
        yield "document", record["text"]
        return
    for turn in record[TURNS[shape]]:
        yield turn["role"], turn["content"] or ""
    for response in answers(shape, record):
        yield "assistant", response


def _held(index: Index, text: str) -> list[int]:
    """Return the questions of which enough n-grams stand in the text, in order."""
    if not index.ids:
        return []
    sums = _sums(units(text))
    windows = [_windows(sums, length) for length in index.lengths if length < len(sums)]
    if not windows:
        return []
    grams = np.unique(index.among(np.concatenate(windows)))
    if not len(grams):
        return []
    first, last = (np.searchsorted(index.hashes, grams, side) for side in ("left", "right"))
    owners = np.concatenate([index.owners[start:end] for start, end in zip(first, last, strict=True)])
    found, counts = np.unique(owners, return_counts=True)
    return [int(question) for question in found[counts >= np.maximum(index.needed[found], 1)]]


def _is_asked(index: Index, question: int, role: str, text: str) -> bool:
    """Whether a very short question is a whole turn of the user or a line of a document."""
    if role not in ("user", "document"):
        return False
    wanted = index.hashes[index.owners == question]
    pieces = text.split("\n") if role == "document" else [text]
    return any(
        _grams(said, len(said))[0] in wanted for piece in pieces if 0 < len(said := units(piece)) < index.shortest
    )


def _rules(sizes: list[int], owners: Counts, shared: Any, settings: Contamination) -> tuple[Counts, Any]:
    """Return how many n-grams make each question a leak (0: it must be a whole turn), and which
    n-grams count.
    """
    total = np.bincount(owners, minlength=len(sizes))
    own = np.bincount(owners[~shared], minlength=len(sizes))
    units_asked = np.array(sizes, int)
    long = (units_asked >= 2 * settings.ngram) & (own > 0)
    needed = np.where(long, np.ceil(settings.overlap * own), total)
    needed[units_asked < settings.shortest] = 0
    return needed.astype(np.int32), ~(long[owners] & shared)


def _grams(asked: Iterable[str], length: int) -> Hashes:
    """Return the distinct n-grams of a question; a shorter one is its only n-gram."""
    sums = _sums(list(asked))
    return np.unique(_windows(sums, min(length, len(sums) - 1)))


def _sums(found: list[str]) -> Hashes:
    """Return the running sums [units + 1] of hash(unit i) * BASE**i, modulo 2**64."""
    from rensa import RMinHash

    hashes = np.array(RMinHash.hash_token_sets([found])[0], dtype=np.uint64)
    sums = np.zeros(len(found) + 1, np.uint64)
    np.cumsum(hashes * _powers(BASE, len(found)), out=sums[1:])
    return sums


def _windows(sums: Hashes, length: int) -> Hashes:
    """Return the hash of every `length` units: the sum of hash(unit k of them) * BASE**k, wherever
    they stand.
    """
    return (sums[length:] - sums[:-length]) * _powers(INVERSE, len(sums) - length)


def _powers(base: int, count: int) -> Hashes:
    """Return base**0, base**1, ... [count], modulo 2**64."""
    return _table(base, max(count, POWERS_KEPT))[:count]


@lru_cache(maxsize=4)
def _table(base: int, count: int) -> Hashes:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)
