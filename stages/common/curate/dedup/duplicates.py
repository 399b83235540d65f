"""Exact and near duplicates within a shape, across tasks and sources: keys, pairs, and which record
of a pair goes.

1. `writer`: every task writes its records' keys (`dedup_keys.py`), one by content and, for a text
   that is long enough, one for each band of its MinHash signature.
2. `pairs`: each part of the key space is sorted; records that share a key are candidates, and those
   whose similarity, taken from their sketches, reaches the threshold are a pair; of conversations
   (`sided`), what is asked and what is answered each have to be alike (`asked_words.py`). The
   number of parts grows with the data, so memory does not.
3. `removals`: a record goes when it is paired with a better one that stays. "Better" is: from a
   trusted source, then a higher quality score, then longer, then earlier in the data. So whatever
   goes has a near duplicate that stays: of a chain A ~ B ~ C with A unlike C, in that order, B
   goes, and C stays. Clusters by transitive closure would lose C, and with it whole families of
   texts that share a template.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from stages.common.core.params import StageParams
from stages.common.curate.dedup import asked_words, shingles
from stages.common.curate.dedup.dedup_keys import SKETCH_SIZE, Facts, Keys, References, Store
from stages.common.curate.dedup.hashing import Hashes
from stages.common.runtime.errors import DataError
from stages.common.runtime.whole_files import written_whole

KEYS_PER_PARTITION = 1_000_000
PAIRS_AT_ONCE = 4_096
LEADERS = 16
REASONS = ("near_duplicate", "duplicate")
PAIR = np.dtype([("better", "<u8"), ("worse", "<u8"), ("exact", "?")])
Pairs: TypeAlias = npt.NDArray[Any]
Ranks: TypeAlias = npt.NDArray[np.int64]


class NearDuplicates(StageParams):
    """Which texts count as near duplicates; exact ones always go."""

    shapes: list[Literal["documents", "conversations"]] = ["documents", "conversations"]
    """Shapes in which near duplicates are looked for."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Jaccard similarity of the shingles from which on two texts are near duplicates."""
    words: PositiveInt = 3
    """Words in a shingle."""
    characters: PositiveInt = 5
    """Characters in a shingle that starts with a Chinese, Japanese or Korean one."""
    fewest_shingles: PositiveInt = 30
    """Texts with fewer are compared by content only: in a short one, one other word is another
    fact.
    """
    bands: PositiveInt = 24
    """Keys from the MinHash signature; two texts of similarity s share one with probability 1 - (1
    - s^rows)^bands.
    """
    rows: PositiveInt = 6
    """Values of the signature in a key."""


def writer(folder: Path, task: int, shape: str, near: NearDuplicates) -> Keys:
    """Return the writer of one task's keys."""
    sets = partial(shingles.sets, words=near.words, characters=near.characters) if shape in near.shapes else None
    return Keys(folder, task, sets, bands=near.bands, rows=near.rows, fewest=near.fewest_shingles)


def partitions(keys: Path) -> int:
    """Return in how many parts the pairs are to be looked for."""
    return Store(keys).keys() // KEYS_PER_PARTITION + 1


def pairs(keys: Path, partition: int, number: int, threshold: float, sided: bool = False) -> Pairs:
    """Return the pairs that share a key of one of `number` parts of the key space."""
    store = Store(keys)
    key, reference = store.shared(partition, number)
    references, inverse = np.unique(reference, return_inverse=True)
    facts = store.facts(references)
    rank = ranks(facts)
    same = best_copy(facts, rank)
    by_content = (key == facts["identity"][inverse, 0]) & (same[inverse] != inverse)
    copies = np.flatnonzero(by_content)
    found = [_paired(references[same[inverse[copies]]], references[inverse[copies]], exact=True)]
    original = same[inverse] == inverse
    key, member = key[original], inverse[original]
    order = np.lexsort((rank[member], key))
    for better, worse in candidates(key[order], member[order], partial(alike, store, references, threshold, sided)):
        found.append(_paired(references[better], references[worse], exact=False))
    return _unique(np.concatenate(found))


def ranks(facts: Facts) -> Ranks:
    """Return each record's place, 0 the best; the records are in data order."""
    score = -np.round(facts["score"].astype(np.float64), 1)
    order = np.lexsort((-facts["characters"].astype(np.int64), score, ~facts["trusted"]))
    place = np.empty(len(facts), dtype=np.int64)
    place[order] = np.arange(len(facts))
    return place


def best_copy(facts: Facts, rank: Ranks) -> Ranks:
    """Return the index of each record's best exact duplicate: its own when it is the best."""
    order = np.lexsort((rank, facts["identity"][:, 1], facts["identity"][:, 0]))
    identity = facts["identity"][order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (identity[1:] != identity[:-1]).any(axis=1)
    same = np.empty(len(order), dtype=np.int64)
    same[order] = order[np.flatnonzero(first)][np.cumsum(first) - 1]
    return same


def candidates(
    key: Hashes, member: Ranks, alike: Callable[[Ranks, Ranks], npt.NDArray[np.bool_]]
) -> Iterator[tuple[Ranks, Ranks]]:
    """Yield the alike of those that share a key, as (better, worse); both arrays sorted by key,
    members best first.

    Each member is compared with up to LEADERS better ones. Where more share a key, whoever is like
    one of them is not compared further, so that a text that stands there ten thousand times costs
    ten thousand comparisons.
    """
    _, run, size = np.unique(key, return_inverse=True, return_counts=True)
    crowded = size[run] > LEADERS
    for _ in range(LEADERS):
        leads = np.insert(run[1:] != run[:-1], 0, True)[: len(run)]
        leader, follows = member[leads][np.cumsum(leads) - 1], ~leads
        if not follows.any():
            return
        better, worse = leader[follows], member[follows]
        confirmed = alike(better, worse)
        yield better[confirmed], worse[confirmed]
        follows[follows] = ~(confirmed & crowded[follows])
        run, member, crowded = run[follows], member[follows], crowded[follows]


def alike(
    store: Store, references: References, threshold: float, sided: bool, some: Ranks, others: Ranks
) -> npt.NDArray[np.bool_]:
    """Return which of some records are like the other at their place; both index `references`."""
    couples, back = np.unique(some * len(references) + others, return_inverse=True)
    similar = np.zeros(len(couples), dtype=bool)
    for start in range(0, len(similar), PAIRS_AT_ONCE):
        both = np.divmod(couples[start : start + PAIRS_AT_ONCE], len(references))
        needed, place = np.unique(both, return_inverse=True)
        first, second = place.reshape(2, -1)
        sketches = store.sketches(references[needed])
        pair, part = (sketches.take(first), sketches.take(second)), slice(start, start + PAIRS_AT_ONCE)
        if sided:
            found = shingles.sided_similarities(*pair, SKETCH_SIZE)
            similar[part] = asked_words.alike(found, threshold, store.words(references[needed]), first, second)
        else:
            similar[part] = shingles.similarities(*pair, SKETCH_SIZE) >= threshold
    return similar[back]


def removals(found: Pairs) -> tuple[References, References, npt.NDArray[np.bool_]]:
    """Return who goes, sorted, for each which record stays instead, and whether it is an exact copy
    of a better one.

    A record stays when none of the better ones it is paired with stays; of several that do, the
    first in the data is named. An exact copy always goes; if its original goes too, what stays for
    the original is named.
    """
    copies, near = found[found["exact"]], found[~found["exact"]]
    gone, kept = _gone(near["better"], near["worse"])
    original = copies["better"]
    if len(gone):
        place = np.minimum(np.searchsorted(gone, original), len(gone) - 1)
        original = np.where(gone[place] == original, kept[place], original)
    every = np.concatenate([gone, copies["worse"]])
    order = np.argsort(every, kind="stable")
    exact = np.concatenate([np.zeros(len(gone), dtype=bool), np.ones(len(copies), dtype=bool)])
    return every[order], np.concatenate([kept, original])[order], exact[order]


def _gone(better: References, worse: References) -> tuple[References, References]:
    """Return who goes, sorted, and what stays instead; whom no undecided one can replace stays."""
    gone, kept = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    while len(better):
        stays = np.flatnonzero(~np.isin(better, worse))
        stays = stays[np.lexsort((better[stays], worse[stays]))]
        out, first = np.unique(worse[stays], return_index=True)
        gone.append(out)
        kept.append(better[stays[first]])
        left = ~(np.isin(worse, out) | np.isin(better, out))
        better, worse = better[left], worse[left]
    every, names = np.concatenate(gone), np.concatenate(kept)
    order = np.argsort(every)
    return every[order], names[order]


def save(found: Pairs, folder: Path, partition: int) -> None:
    """Write the pairs of one part of the key space."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / f"{partition:05d}.npy") as own, own.open("wb") as file:
        np.save(file, found)


def cluster(keys: Path, pairs_folder: Path, out: Path) -> int:
    """Decide over all pairs and write a file a task of who goes, why and what stays instead; return
    how many go. Memory holds 50 bytes a pair.
    """
    found = np.zeros(0, PAIR)
    for file in sorted(pairs_folder.glob("*.npy")):
        found = _unique(np.concatenate([found, np.load(file)]))
    gone, kept, exact = removals(found)
    store = Store(keys)
    out.mkdir(parents=True, exist_ok=True)
    borders = np.searchsorted(gone, [np.uint64(task << 32) for task in range(store.tasks + 1)])
    for task, (first, last) in enumerate(itertools.pairwise(borders.tolist())):
        named, place = np.unique(kept[first:last], return_inverse=True)
        names = store.ids(named)
        rows = gone[first:last].astype(np.uint32).tolist()
        reasons = [REASONS[copy] for copy in exact[first:last].tolist()]
        lines = list(zip(rows, reasons, [names[index] for index in place.tolist()], strict=True))
        with written_whole(out / f"{task:05d}.json") as own:
            own.write_text(json.dumps(lines), encoding="utf-8")
    return len(gone)


def load_removals(folder: Path, task: int) -> dict[int, tuple[str, str]]:
    """Return for each row of a task that goes the reason and the id of what stays instead. Raises
    DataError.
    """
    file = folder / f"{task:05d}.json"
    try:
        return {row: (reason, of) for row, reason, of in json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError) as error:
        what = f"the list of this task's duplicates is missing or torn: {error}"
        raise DataError(what, where=file, remedy="run `dvc repro -f curate`") from error


def _paired(better: References, worse: References, *, exact: bool) -> Pairs:
    found = np.zeros(len(better), PAIR)
    found["better"], found["worse"], found["exact"] = better, worse, exact
    return found


def _unique(found: Pairs) -> Pairs:
    order = np.lexsort((found["better"], found["worse"]))
    better, worse = found["better"][order], found["worse"][order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (better[1:] != better[:-1]) | (worse[1:] != worse[:-1])
    return found[order[new]]
