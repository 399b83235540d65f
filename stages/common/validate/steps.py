"""The datatrove step that looks at every record once: one task a file, its facts, keys and counts
written to disk.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from stages.common.core import records
from stages.common.core.records import Shape
from stages.common.curate import record_counts
from stages.common.curate.filters.contamination import Index
from stages.common.text.parquet_writer import row_count
from stages.common.validate import cross_record_checks, shares
from stages.common.validate.features import SCHEMAS, Facts, facts, whole


@dataclass(frozen=True)
class Part:
    """One file of a shape, and the split it belongs to (`whole` where there are none)."""

    shape: Shape
    split: str
    file: Path


def parts(curated: Path) -> list[Part]:
    """Return the files of all shapes, in order. Raises DataError for a shape without any."""
    found = [(shape, file) for shape in records.SHAPES for file in records.files(curated / shape)]
    return [Part(shape, file.parent.name if file.parent.name != shape else "whole", file) for shape, file in found]


class Look(PipelineStep):
    """Writes the facts of file `rank` to `facts/<rank>.parquet`, its keys to `ids` and `contents`,
    and its counts.
    """

    type, name = "STATS", "facts"

    def __init__(self, curated: Path, index: Path, work: Path) -> None:
        super().__init__()
        self.parts, self.index, self.work = parts(curated), index, work
        self.count = cross_record_checks.parts(sum(row_count(curated / shape) for shape in records.SHAPES))

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Look at every record of a file; yields nothing."""
        part, index = self.parts[rank], Index.load(self.index)
        found: list[Facts] = []
        keys: list[Facts] = []
        counted: record_counts.Tally = record_counts.Tally()
        for read in records.read_file(part.file):
            record = whole(part.shape, read)
            found.append(facts(part.shape, record, index))
            keys.append(cross_record_checks.keys(part.shape, part.split, record))
            shares.count(counted, part.shape, record)
        cross_record_checks.write(self.work, rank, self.count, keys)
        record_counts.save(counted, self.work / "counts", rank)
        (self.work / "facts").mkdir(exist_ok=True)
        table = pa.Table.from_pylist(found, SCHEMAS[part.shape])
        pq.write_table(table, self.work / "facts" / f"{rank:06d}.parquet", compression="zstd")
        yield from ()
