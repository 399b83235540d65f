"""Hashes of the units of many texts at once, in numpy: as `units.py` cuts them, without making a
string of each.

A hash depends on the unit alone: not on its place, the other texts, the process or the machine.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from stages.common.text.units import UNITS

Hashes: TypeAlias = npt.NDArray[np.uint64]
Numbers: TypeAlias = npt.NDArray[np.int64]

GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
LAST_CODE = 0x40000  # from here on Unicode has no letters, digits or ideographs
NOTHING, LETTER, DIGIT, IDEOGRAPH = range(4)


class Units(NamedTuple):
    """The units of many texts one after the other: hash, whether an ideograph, and how many each
    text has.
    """

    hashes: Hashes
    ideographic: npt.NDArray[np.bool_]
    counts: Numbers


def mixed(values: Hashes) -> Hashes:
    """Return the values spread evenly over 64 bits, one to one (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * FIRST
    values = (values ^ (values >> np.uint64(27))) * SECOND
    return values ^ (values >> np.uint64(31))


def combined(columns: Sequence[Hashes]) -> Hashes:
    """Return one hash for each row of several columns; their order counts."""
    total = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        total = total * GOLDEN + column
    return mixed(total)


@cache
def tables() -> tuple[npt.NDArray[np.uint8], Hashes]:
    """Return what each code point is to `units.UNITS`, and its hash, 0 for what falls away."""
    kind = np.full(LAST_CODE + 1, NOTHING, dtype=np.uint8)
    every = "".join(map(chr, range(LAST_CODE)))
    ideograph, _, _ = UNITS.pattern.partition("|")
    for what, pattern in ((LETTER, r"[^\W\d_]+"), (DIGIT, r"\d+"), (IDEOGRAPH, f"{ideograph}+")):
        for run in re.finditer(pattern, every):
            kind[run.start() : run.end()] = what
    return kind, np.where(kind == NOTHING, np.uint64(0), mixed(np.arange(LAST_CODE + 1, dtype=np.uint64) + GOLDEN))


def units(texts: Sequence[str]) -> Units:
    """Return the hashed units of some texts."""
    plain = [unicodedata.normalize("NFKC", text).casefold() for text in texts]
    codes = np.frombuffer("\n".join([*plain, ""]).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
    kinds, hashes = tables()
    kind = kinds.take(codes, mode="clip")
    begins = kind != NOTHING
    begins[1:] &= (kind[1:] != kind[:-1]) | (kind[1:] == IDEOGRAPH)
    starts = np.flatnonzero(begins)
    if not len(starts):
        return Units(np.zeros(0, np.uint64), np.zeros(0, bool), np.zeros(len(texts), np.int64))
    lengths = np.diff(starts, append=len(codes))
    place = np.arange(starts[0], len(codes)) - np.repeat(starts, lengths)
    powers = np.cumprod(np.full(lengths.max(), GOLDEN))
    values = hashes.take(codes[starts[0] :], mode="clip") * powers[place]
    counts = np.diff(np.searchsorted(starts, np.cumsum([len(text) + 1 for text in plain])), prepend=0)
    return Units(mixed(np.add.reduceat(values, starts - starts[0])), kind[starts] == IDEOGRAPH, counts)
