"""datatrove steps that records flow through: read a slice, make uniform, measure, scrub, write.

A task is one slice of the input (some seconds of work), however many workers there are, so what is
written does not depend on them. A record travels as a Document: `text` is what is measured
and compared, metadata["record"] the record itself, metadata["language"] and ["score"] what was
measured.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched

from stages.common.core import records
from stages.common.core.records import SCHEMAS, Record, Shape
from stages.common.curate import record_counts
from stages.common.curate.filters import language, pii, quality_classifier
from stages.common.curate.record_counts import Tally
from stages.common.text import normalisation
from stages.common.text.parquet_writer import RECORDS_PER_GROUP, Shards

if TYPE_CHECKING:
    from stages.common.curate.filters.quality_classifier import Model, Quality

RECORDS_PER_TASK, BYTES_PER_TASK = 20_000, 8_000_000
RECORDS_MEASURED_AT_ONCE = 256
MEASURED = [pa.field("language", pa.string()), pa.field("score", pa.float32())]
Slice = tuple[str, int, int]


def slices(folder: Path) -> list[Slice]:
    """Return the tasks of a folder: file, first and last (exclusive) row group, of RECORDS_PER_TASK
    records or BYTES_PER_TASK at most, and one row group at least.
    """
    found: list[Slice] = []
    for file in records.files(folder):
        metadata = pq.read_metadata(file)
        first = rows = size = 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            if rows and (rows + group.num_rows > RECORDS_PER_TASK or size + group.total_byte_size > BYTES_PER_TASK):
                found.append((str(file), first, number))
                first, rows, size = number, 0, 0
            rows, size = rows + group.num_rows, size + group.total_byte_size
        found.append((str(file), first, metadata.num_row_groups))
    return found


def written(folder: Path) -> list[Slice]:
    """Return the tasks of what an earlier pipeline wrote: each of its tasks, whole."""
    return [(str(file), 0, pq.read_metadata(file).num_row_groups) for file in records.files(folder)]


def compared(shape: Shape, record: Record) -> str:
    """Return the text by which a record is measured and compared: a document's own, or what all
    turns say.
    """
    if shape == "documents":
        return str(record["text"])
    turns = [turn["content"] for turn in record[records.TURNS[shape]]]
    return "\n".join([*turns, *records.answers(shape, record)])


class Read(PipelineStep):
    """Yields the records of slice `rank` as they are."""

    type, name = "READER", "records"

    def __init__(self, shape: Shape, found: list[Slice]) -> None:
        super().__init__()
        self.shape, self.slices = shape, found

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield one Document a record; what an earlier pipeline measured goes to the metadata."""
        file, first, last = self.slices[rank]
        for batch in pq.ParquetFile(file).iter_batches(RECORDS_PER_GROUP, row_groups=range(first, last)):
            for record in batch.to_pylist():
                measured = {field.name: record.pop(field.name) for field in MEASURED if field.name in record}
                self.stat_update("total")
                yield Document(compared(self.shape, record), record["id"], metadata={"record": record} | measured)


class Normalise(PipelineStep):
    """Makes every text of a record uniform."""

    type, name = "FORMATTER", "normalise"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the Documents with uniform text; the record as it came stays in metadata["raw"]."""
        for doc in data:
            doc.metadata["raw"] = doc.metadata["record"]
            doc.metadata["record"] = normalisation.clean(self.shape, doc.metadata["record"])
            doc.text = compared(self.shape, doc.metadata["record"])
            yield doc


class Measure(PipelineStep):
    """Finds the language and, where there is a model, the quality score, and counts both before
    anything is dropped.
    """

    type, name = "STATS", "measure"

    def __init__(self, shape: Shape, model: "Model | None", settings: "Quality", counts: Path) -> None:
        super().__init__()
        self.model, self.settings, self.counts = model if shape == "documents" else None, settings, counts

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the Documents with metadata["language"], ["score"] (None without a model) and
        ["trusted"].
        """
        counted: Tally = Tally()
        for batch in batched(data, RECORDS_MEASURED_AT_ONCE):
            scores = (
                quality_classifier.score(self.model, [doc.text for doc in batch]).tolist()
                if self.model
                else [None] * len(batch)
            )
            for doc, score in zip(batch, scores, strict=True):
                source = doc.metadata["record"]["source"]
                doc.metadata |= {"language": language.detect(doc.text), "score": score}
                doc.metadata["trusted"] = quality_classifier.trusted(source, self.settings)
                record_counts.observe(counted, "before", doc.text, doc.metadata["language"], score)
                yield doc
        record_counts.save(counted, self.counts / "before", rank)


class Scrub(PipelineStep):
    """Replaces personal data by typed placeholders, and counts them."""

    type, name = "FORMATTER", "personal data"

    def __init__(self, shape: Shape, counts: Path) -> None:
        super().__init__()
        self.shape, self.counts = shape, counts

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the Documents without personal data."""
        counted: Tally = Tally()
        for doc in data:
            doc.metadata["record"], found = pii.scrub_record(self.shape, doc.metadata["record"])
            if found:
                counted.update({("personal", kind): number for kind, number in found.items()})
                counted["scrubbed", doc.metadata["record"]["source"]] += 1
                doc.text = compared(self.shape, doc.metadata["record"])
            yield doc
        record_counts.save(counted, self.counts / "personal", rank)


class Write(PipelineStep):
    """Writes what is left with what was measured, for the next pipeline."""

    type, name = "WRITER", "records"

    def __init__(self, shape: Shape, folder: Path) -> None:
        super().__init__()
        self.folder, self.schema = folder, pa.schema([*SCHEMAS[shape], *MEASURED])

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Write `part-<rank>.parquet`; yields nothing."""
        with Shards({self.folder: self.schema}, part=rank) as shards:
            for doc in data:
                measured = {field.name: doc.metadata[field.name] for field in MEASURED}
                shards.add(self.folder, doc.metadata["record"] | measured)
        yield from ()
