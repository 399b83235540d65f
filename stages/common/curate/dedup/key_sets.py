"""Sets of 64-bit keys larger than memory: each task writes its own, they are merged once, then
looked up on disk.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.runtime.whole_files import written_whole

KEYS_AT_ONCE = 2**20  # of 8 bytes: 8 MB
KEY = np.dtype("<u8")
MERGED = "merged.u64"
Keys = NDArray[np.uint64]


def write(folder: Path, task: int, keys: Iterable[int]) -> None:
    """Write the keys of one task; a task that is run again writes them again."""
    folder.mkdir(parents=True, exist_ok=True)
    _put(folder / f"{task:05d}.keys", [np.unique(np.fromiter(keys, KEY))])


def merge(folder: Path) -> Path:
    """Merge what all tasks wrote into one sorted file, range by range of keys, and return it."""
    files = sorted(folder.glob("*.keys"))
    ranges = -(-sum(file.stat().st_size for file in files) // (KEYS_AT_ONCE * KEY.itemsize)) or 1
    edges = np.array([number * 2**64 // ranges for number in range(1, ranges)], KEY)
    starts = [[0, *np.searchsorted(part, edges).tolist(), len(part)] for part in map(load, files)]
    return _put(folder / MERGED, (_range(files, starts, number) for number in range(ranges)))


def _range(files: list[Path], starts: list[list[int]], number: int) -> Keys:
    """Return the distinct keys of one range, sorted; file n has them from starts[n][number] on."""
    parts = [
        np.fromfile(file, KEY, start[number + 1] - start[number], offset=start[number] * KEY.itemsize)
        for file, start in zip(files, starts, strict=True)
    ]
    keys = np.sort(np.concatenate([np.zeros(0, KEY), *parts]))
    return keys[np.r_[np.ones(len(keys[:1]), bool), keys[1:] != keys[:-1]]]


def load(file: Path) -> Keys:
    """Return the keys of a merged file; memory holds the pages that are touched."""
    return np.memmap(file, KEY, "r") if file.stat().st_size else np.zeros(0, KEY)


def contains(members: Keys, keys: Keys) -> NDArray[np.bool_]:
    """Return which of `keys` are among the sorted `members`."""
    if not len(members):
        return np.zeros(len(keys), bool)
    places = np.minimum(np.searchsorted(members, keys), len(members) - 1)
    return np.asarray(members[places] == keys)


def _put(file: Path, arrays: Iterable[Keys]) -> Path:
    with written_whole(file) as own, own.open("wb") as handle:
        for array in arrays:
            handle.write(array.tobytes())
    return file
