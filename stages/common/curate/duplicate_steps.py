"""The datatrove steps that find duplicates: write keys while records stream by, pair them, decide, leave them out.

The records must stream by a second time in the same tasks and order as when their keys were written.
"""

from pathlib import Path

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.writers.disk_base import DiskWriter

from stages.common import content
from stages.common.curate import duplicates
from stages.common.curate.duplicates import NearDuplicates, partitions
from stages.common.curate.keys import Row
from stages.common.records import Shape

__all__ = ["Cluster", "FindPairs", "RemoveDuplicates", "WriteKeys", "partitions"]


class WriteKeys(PipelineStep):
    """Writes the keys of the records that stream by."""

    type, name = "DEDUP", "keys"

    def __init__(self, shape: Shape, keys: Path, near: NearDuplicates) -> None:
        super().__init__()
        self.shape, self.keys, self.near = shape, keys, near

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the Documents as they are; metadata["score"] and ["trusted"] decide which of two is the better."""
        with duplicates.writer(self.keys, rank, self.shape, self.near) as keys:
            for doc in data:
                known = doc.metadata
                identity = content.identity(self.shape, known["record"])
                keys.add(Row(doc.id, identity, doc.text, known.get("score") or 0.0, known.get("trusted", False)))
                yield doc


class FindPairs(PipelineStep):
    """Writes the pairs of duplicates whose shared key falls into part `rank` of the key space."""

    type, name = "DEDUP", "pairs"

    def __init__(self, keys: Path, pairs: Path, threshold: float) -> None:
        super().__init__()
        self.keys, self.pairs, self.threshold = keys, pairs, threshold

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield nothing."""
        found = duplicates.pairs(self.keys, rank, world_size, self.threshold)
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


class RemoveDuplicates(BaseFilter):
    """Drops the records that `Cluster` decided on, as `duplicate` or `near_duplicate` of metadata["of"]."""

    type, name = "FILTER", "duplicates"

    def __init__(self, clusters: Path, exclusion_writer: DiskWriter | None) -> None:
        super().__init__(exclusion_writer=exclusion_writer)
        self.clusters = clusters

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the Documents that stay."""
        self.removals, self.row = duplicates.load_removals(self.clusters, rank), 0
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Return True, or False with the reason."""
        reason, of = self.removals.get(self.row, ("", ""))
        self.row += 1
        if reason:
            doc.metadata["of"] = of
        return (False, reason) if reason else True
