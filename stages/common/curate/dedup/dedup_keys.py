"""What is known of every record to find its duplicates, on disk: its keys, sorted, and what decides
which one is kept.

Each task (one slice of the data) writes one folder, `<folder>/<task>`, and whoever looks for
duplicates reads from all of them the part that it needs. A reference names a record: its task in
the upper 32 bits, its row in the lower.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from stages.common.curate.dedup import asked_words, shingles
from stages.common.curate.dedup.hashing import Hashes
from stages.common.curate.dedup.shingles import Sets
from stages.common.runtime import whole_files
from stages.common.runtime.errors import DataError

References: TypeAlias = Hashes
Facts: TypeAlias = npt.NDArray[Any]

SKETCH_SIZE = 1024
TEXTS_AT_ONCE, CHARACTERS_AT_ONCE = 512, 80_000  # more do not fit the processor's cache, and take twice as long
ROW_BITS = np.uint64(32)
FACT = np.dtype(
    [
        ("identity", "<u8", 2),
        ("score", "<f4"),
        ("trusted", "?"),
        ("characters", "<u4"),
        ("sketch_end", "<u8"),
        ("word_end", "<u8"),
        ("id_end", "<u8"),
    ]
)


class Row(NamedTuple):
    """One record: the digest of its content, the text it is compared by, and what decides whether
    it is the best; of a conversation also what is asked and what is answered, which are compared
    each by itself.
    """

    id: str
    identity: bytes
    text: str
    score: float = 0.0
    trusted: bool = False
    sides: tuple[str, str] | None = None


class Keys:
    """Writes the keys of one task's records, in order; a context manager, and the folder appears
    when it ends well.

    `sets` turns texts into shingles; None compares by content only. Memory holds 250 bytes a
    record.
    """

    def __init__(
        self,
        folder: Path,
        task: int,
        sets: Callable[[Sequence[str]], Sets] | None,
        *,
        bands: int = 24,
        rows: int = 6,
        fewest: int = 1,
    ) -> None:
        self.folder = folder / f"{task:05d}"
        self.partial = whole_files.own_name(self.folder)
        self.sets, self.bands, self.rows, self.fewest = sets, bands, rows, fewest
        self.waiting: list[Row] = []
        self.characters = self.written = self.sketch_end = self.word_end = self.id_end = 0
        self.keys: list[Hashes] = [np.zeros(0, np.uint64)]
        self.key_rows: list[npt.NDArray[np.uint32]] = [np.zeros(0, np.uint32)]
        self.facts: list[Facts] = [np.zeros(0, FACT)]

    def __enter__(self) -> "Keys":
        whole_files.remove(self.partial)
        self.partial.mkdir(parents=True)
        self.sketches: IO[bytes] = (self.partial / "sketches.bin").open("wb")
        self.words: IO[bytes] = (self.partial / "words.bin").open("wb")
        self.ids: IO[bytes] = (self.partial / "ids.bin").open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.sketches, self.words, self.ids:
            if kind is None:
                self._flush()
        if kind is None:
            keys = np.concatenate(self.keys)
            order = np.argsort(keys, kind="stable")
            np.save(self.partial / "keys.npy", keys[order])
            np.save(self.partial / "rows.npy", np.concatenate(self.key_rows)[order])
            np.save(self.partial / "facts.npy", np.concatenate(self.facts))
            whole_files.put(self.partial, self.folder)

    def add(self, row: Row) -> None:
        """Add the next record."""
        self.waiting.append(row)
        self.characters += len(row.text)
        if len(self.waiting) == TEXTS_AT_ONCE or self.characters > CHARACTERS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        rows, number = self.waiting, len(self.waiting)
        if not rows:
            return
        facts = np.zeros(number, FACT)
        facts["identity"] = np.frombuffer(b"".join(row.identity for row in rows), "<u8").reshape(number, 2)
        facts["score"] = [row.score for row in rows]
        facts["trusted"] = [row.trusted for row in rows]
        facts["characters"] = [len(row.text) for row in rows]
        ids = [row.id.encode() for row in rows]
        facts["id_end"] = self.id_end + np.cumsum([len(one) for one in ids])
        self.ids.write(b"".join(ids))
        place = np.arange(self.written, self.written + number)
        self._keep(facts["identity"][:, 0], place)
        facts["sketch_end"], facts["word_end"] = self.sketch_end, self.word_end
        if self.sets is not None:
            found = self._shingles(self.sets)
            enough = found.sizes() >= self.fewest
            keys = shingles.bands(found, self.bands, self.rows)[enough]
            self._keep(keys.ravel(), np.repeat(place[enough], self.bands))
            sketches = shingles.sketches(found, SKETCH_SIZE)
            facts["sketch_end"] += sketches.ends.astype(np.uint64)
            self.sketches.write(sketches.values.tobytes())
            words = asked_words.of([row.sides[0] for row in rows if row.sides is not None])
            facts["word_end"] += words.ends.astype(np.uint64) if len(words.ends) else np.uint64(0)
            self.words.write(words.values.tobytes())
        self.facts.append(facts)
        self.id_end, self.sketch_end, self.word_end = (
            int(facts[name][-1]) for name in ("id_end", "sketch_end", "word_end")
        )
        self.written += number
        self.waiting, self.characters = [], 0

    def _shingles(self, sets: Callable[[Sequence[str]], Sets]) -> Sets:
        sides = [row.sides for row in self.waiting if row.sides is not None]
        if not sides:
            return sets([row.text for row in self.waiting])
        return shingles.sided(sets([asked for asked, _ in sides]), sets([answered for _, answered in sides]))

    def _keep(self, keys: Hashes, rows: npt.NDArray[np.int64]) -> None:
        self.keys.append(keys)
        self.key_rows.append(rows.astype(np.uint32))


class Store:
    """Reads what the tasks wrote. Raises DataError when a task's files are missing or torn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks = len([path for path in folder.iterdir() if path.name.isdigit()]) if folder.is_dir() else 0

    def keys(self) -> int:
        """Return how many keys there are in all."""
        return sum(len(self._open(task, "keys.npy")) for task in range(self.tasks))

    def shared(self, partition: int, partitions: int) -> tuple[Hashes, References]:
        """Return the keys of one of several equal parts of all possible keys that more than one
        record has, sorted.
        """
        low, high = (index * 2**64 // partitions for index in (partition, partition + 1))
        keys, references = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for task in range(self.tasks):
            everything = self._open(task, "keys.npy")
            first = np.searchsorted(everything, np.uint64(low))
            last = len(everything) if high == 2**64 else np.searchsorted(everything, np.uint64(high))
            keys.append(np.array(everything[first:last]))
            references.append(self._open(task, "rows.npy")[first:last] | np.uint64(task << 32))
        key = np.concatenate(keys)
        order = np.argsort(key, kind="stable")
        key = key[order]
        same = key[1:] == key[:-1]
        shared = np.append(same, False) | np.insert(same, 0, False) if len(key) else np.zeros(0, bool)
        return key[shared], np.concatenate(references)[order[shared]]

    def facts(self, references: References) -> Facts:
        """Return the facts of records, references sorted."""
        parts = [self._open(task, "facts.npy")[rows] for task, rows in self._by_task(references)]
        return np.concatenate([np.zeros(0, FACT), *parts])

    def sketches(self, references: References) -> Sets:
        """Return the sketches of records, references sorted."""
        return self._sets(references, "sketches.bin", "sketch_end")

    def words(self, references: References) -> Sets:
        """Return the words of what records ask, references sorted."""
        return self._sets(references, "words.bin", "word_end")

    def _sets(self, references: References, name: str, end: str) -> Sets:
        values, sizes = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
        for task, rows in self._by_task(references):
            starts, ends = self._spans(task, rows, end)
            file = self.folder / f"{task:05d}" / name
            everything = np.memmap(file, "<u4", "r") if ends[-1] else np.zeros(0, np.uint32)
            values.append(np.concatenate([everything[start:end] for start, end in zip(starts, ends, strict=True)]))
            sizes.append(ends - starts)
        return Sets(np.concatenate(values), np.cumsum(np.concatenate(sizes)))

    def ids(self, references: References) -> list[str]:
        """Return the ids of records, references sorted."""
        found = []
        for task, rows in self._by_task(references):
            starts, ends = self._spans(task, rows, "id_end")
            with (self.folder / f"{task:05d}/ids.bin").open("rb") as file:
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                    file.seek(start)
                    found.append(file.read(end - start).decode())
        return found

    def _spans(
        self, task: int, rows: npt.NDArray[np.int64], name: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        ends = self._open(task, "facts.npy")[name].astype(np.int64)
        return np.where(rows > 0, ends[rows - 1], 0), ends[rows]

    def _by_task(self, references: References) -> list[tuple[int, npt.NDArray[np.int64]]]:
        task = (references >> ROW_BITS).astype(np.int64)
        row = references.astype(np.uint32).astype(np.int64)
        tasks, first = np.unique(task, return_index=True)
        return list(zip(tasks.tolist(), np.split(row, first[1:]), strict=True)) if len(tasks) else []

    def _open(self, task: int, name: str) -> npt.NDArray[Any]:
        file = self.folder / f"{task:05d}" / name
        try:
            return np.load(file, mmap_mode="r" if file.stat().st_size > 4096 else None)
        except (OSError, ValueError) as error:
            raise DataError(
                f"keys are missing or torn: {error}", where=file, remedy="run `dvc repro -f curate`"
            ) from error
