"""The datatrove steps that find duplicates: write keys while records stream by, pair them, decide,
leave them out.

The records must stream by a second time in the same tasks and order as when their keys were
written.
"""

from contextlib import nullcontext
from pathlib import Path

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers.disk_base import DiskWriter

from stages.common.core.records import Record, Shape
from stages.common.curate.dedup import duplicates
from stages.common.curate.dedup.dedup_keys import Row
from stages.common.curate.dedup.duplicates import NearDuplicates, partitions
from stages.common.runtime.errors import DataError
from stages.common.text import content_hash

__all__ = ["Cluster", "FindPairs", "RemoveDuplicates", "WriteKeys", "partitions"]


def sides_of(record: Record) -> tuple[str, str]:
    """Return what is asked in a conversation, with what tools say, and what is answered; a system
    prompt is neither, as many conversations share one.
    """
    asked = [turn["content"] for turn in record["messages"] if turn["role"] in ("user", "tool")]
    answered = [turn["content"] for turn in record["messages"] if turn["role"] == "assistant"]
    return "\n".join(asked), "\n".join(answered)


class WriteKeys(PipelineStep):
    """Writes the keys of the records that stream by."""

    type, name = "DEDUP", "keys"

    def __init__(self, shape: Shape, keys: Path, near: NearDuplicates) -> None:
        super().__init__()
        self.shape, self.keys, self.near = shape, keys, near

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the Documents as they are; metadata["score"] and ["trusted"] decide which of two is
        the better.
        """
        with duplicates.writer(self.keys, rank, self.shape, self.near) as keys:
            for doc in data:
                known = doc.metadata
                identity = content_hash.identity(self.shape, known["record"])
                sides = sides_of(known["record"]) if self.shape == "conversations" else None
                keys.add(Row(doc.id, identity, doc.text, known.get("score") or 0.0, known.get("trusted", False), sides))
                yield doc


class FindPairs(PipelineStep):
    """Writes the pairs of duplicates whose shared key falls into part `rank` of the key space."""

    type, name = "DEDUP", "pairs"

    def __init__(self, shape: Shape, keys: Path, pairs: Path, threshold: float) -> None:
        super().__init__()
        self.shape, self.keys, self.pairs, self.threshold = shape, keys, pairs, threshold

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield nothing."""
        found = duplicates.pairs(self.keys, rank, world_size, self.threshold, self.shape == "conversations")
        duplicates.save(found, self.pairs, rank)
        self.stat_update("pairs", value=len(found))
        yield from ()


class Cluster(PipelineStep):
    """Decides over all pairs which records go; one task."""

    type, name = "DEDUP", "clusters"

    def __init__(self, keys: Path, pairs: Path, clusters: Path) -> None:
        super().__init__()
        self.keys, self.pairs, self.clusters = keys, pairs, clusters

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield nothing."""
        self.stat_update("removals", value=duplicates.cluster(self.keys, self.pairs, self.clusters))
        yield from ()


class RemoveDuplicates(PipelineStep):
    """Drops the records that `Cluster` decided on, as `duplicate` or `near_duplicate` of
    metadata["of"].

    Not a BaseFilter, which spends more time on a document's statistics than this on the document.
    """

    type, name = "FILTER", "duplicates"

    def __init__(self, clusters: Path, exclusion_writer: DiskWriter | None) -> None:
        super().__init__()
        self.clusters, self.exclusion_writer = clusters, exclusion_writer

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the Documents that stay; the others go to the exclusion writer with
        metadata["filter_reason"].

        Raises DataError when fewer stream by than when the keys were written.
        """
        removals, rows = duplicates.load_removals(self.clusters, rank), 0
        with self.exclusion_writer or nullcontext() as aside:
            for rows, doc in enumerate(data, 1):
                if rows - 1 not in removals:
                    yield doc
                    continue
                doc.metadata["filter_reason"], doc.metadata["of"] = removals[rows - 1]
                if aside is not None:
                    aside.write(doc, rank)
        if rows <= max(removals, default=-1):
            raise DataError(f"only {rows} records of task {rank} came by again", where=self.clusters)
        self.stat_update("total", value=rows)
        self.stat_update("dropped", value=len(removals))
