"""Writers that records are pushed into, for stages that sort one stream into many folders."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.core import records
from stages.common.core.records import SCHEMAS, Record, Shape
from stages.common.runtime import whole_files
from stages.common.runtime.errors import DataError

RECORDS_PER_GROUP, RECORDS_PER_FILE = 2_000, 100_000
WAITING_CHARACTERS = 4_000_000


class Shards:
    """Sorts records into folders of `part-00000.parquet`, …; memory holds one row group a folder.

    Every folder named at the start gets at least one file, so that a reader finds the schema. With
    `part` there is exactly one, of that number: the share of one task of several that write to the
    same folders; it appears when all is written.
    """

    def __init__(self, folders: dict[Path, Shape] | dict[Path, pa.Schema], part: int | None = None) -> None:
        self.schemas = {folder: SCHEMAS[kind] if isinstance(kind, str) else kind for folder, kind in folders.items()}
        self.part = part
        self.waiting: dict[Path, list[Record]] = defaultdict(list)
        self.written: dict[Path, int] = dict.fromkeys(self.schemas, 0)
        self.writers: dict[Path, pq.ParquetWriter] = {}
        self.unfinished: list[tuple[Path, Path]] = []

    def __enter__(self) -> "Shards":
        for folder in self.schemas:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("part-*.parquet") if self.part is None else ():
                old.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for folder in self.schemas:
                    self._flush(folder)
        finally:
            for writer in self.writers.values():
                writer.close()
        for own, file in self.unfinished:
            if kind is None:
                whole_files.put(own, file)
            else:
                whole_files.remove(own)

    def add(self, folder: Path, record: Record) -> None:
        """Write `record` to `folder`, one of those named at the start."""
        self.waiting[folder].append(record)
        if len(self.waiting[folder]) == RECORDS_PER_GROUP:
            self._flush(folder)

    def _flush(self, folder: Path) -> None:
        batch = self.waiting.pop(folder, [])
        if not batch and folder in self.writers:
            return
        if self.part is None and folder in self.writers and self.written[folder] % RECORDS_PER_FILE == 0:
            self.writers.pop(folder).close()
        if folder not in self.writers:
            part = self.written[folder] // RECORDS_PER_FILE if self.part is None else self.part
            file = folder / f"part-{part:05d}.parquet"
            if self.part is not None:
                self.unfinished.append((whole_files.own_name(file), file))
                file = whole_files.own_name(file)
            self.writers[folder] = pq.ParquetWriter(file, self.schemas[folder], compression="zstd")
        self.writers[folder].write_table(pa.Table.from_pylist(batch, schema=self.schemas[folder]))
        self.written[folder] += len(batch)


class JsonLines:
    """Sorts objects into `<folder>/<name>.jsonl`, made when its first object arrives; holds no more
    than a few MiB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: dict[str, list[str]] = defaultdict(list)
        self.characters = 0

    def __enter__(self) -> "JsonLines":
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.rglob("*.jsonl"):
            old.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()

    def add(self, name: str, row: Record) -> None:
        """Append `row` to the file of that name."""
        line = json.dumps(row, ensure_ascii=False) + "\n"
        self.waiting[name].append(line)
        self.characters += len(line)
        if self.characters > WAITING_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        for name, lines in self.waiting.items():
            file = self.folder / f"{name}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as handle:
                handle.writelines(lines)
        self.waiting.clear()
        self.characters = 0


def write(rows: Iterable[Record], folder: Path, shape: Shape) -> None:
    """Write one shape's records to one folder."""
    with Shards({folder: shape}) as shards:
        for row in rows:
            shards.add(folder, row)


def row_count(folder: Path) -> int:
    """Return how many records the Parquet files under `folder` hold, by their footers. Raises
    DataError.
    """
    return sum(_metadata(file).num_rows for file in records.files(folder))


def schema(file: Path) -> pa.Schema:
    """Return the columns of a Parquet file. Raises DataError."""
    return _metadata(file).schema.to_arrow_schema()


def _metadata(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"not a readable Parquet file: {error}", where=file, remedy="run `dvc checkout`") from error


def write_json(file: Path, value: Any) -> None:
    """Write a report: readable, sorted, the same bytes for the same value.

    ASCII, because DVC refuses a metrics file that is mostly other bytes as binary, and file names
    may be Chinese.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
