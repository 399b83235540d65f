"""The last datatrove steps: each record to its split, as often as the mixture says."""

from pathlib import Path

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from stages.common.core import records
from stages.common.core.records import Record, Shape
from stages.common.curate import mixture, record_counts, splits
from stages.common.curate.dedup import key_sets
from stages.common.curate.drops import Drops
from stages.common.curate.record_counts import Tally
from stages.common.text import content_hash
from stages.common.text.parquet_writer import Shards


class Split(PipelineStep):
    """Writes the records to their splits, as often as the mixture says; what is not sampled is kept
    aside.
    """

    type, name = "WRITER", "splits"

    def __init__(
        self, shape: Shape, out: Path, limit: int, epochs: dict[str, float], aside: Drops, prompts: Path
    ) -> None:
        super().__init__()
        self.shape, self.limit, self.epochs, self.aside, self.prompts = shape, limit, epochs, aside, prompts
        self.folders = {"whole": out} if shape == "questions" else {split: out / split for split in records.SPLITS}

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Write `part-<rank>.parquet` of each split; yields nothing."""
        counted, prompts = Tally(), set[int]()
        with Shards(dict.fromkeys(self.folders.values(), self.shape), part=rank) as shards, self.aside as aside:
            for doc in data:
                record = doc.metadata["record"]
                split = splits.split(self.shape, record, self.limit)
                times = self._times(record, split)
                if not times:
                    doc.metadata["filter_reason"] = "not_sampled"
                    aside.write(doc, rank)
                    continue
                counted["kept", record["source"], split] += 1
                counted["written", record["source"], split] += times
                record_counts.observe(counted, "after", doc.text, doc.metadata["language"], doc.metadata["score"])
                prompts.add(splits.value(self.shape, record))
                for copy in range(1, times + 1):
                    shards.add(self.folders[split], record | {"id": mixture.copy_id(record["id"], copy)})
        key_sets.write(self.prompts, rank, prompts)
        record_counts.save(counted, self.aside.counts / "split", rank)
        yield from ()

    def _times(self, record: Record, split: str) -> int:
        if split != "train" or not self.epochs:
            return 1
        return mixture.copies(content_hash.identity(self.shape, record), self.epochs[record["source"]])


class Sizes(PipelineStep):
    """Counts the characters of each source that would be trained on, for the mixture."""

    type, name = "STATS", "sizes"

    def __init__(self, shape: Shape, limit: int, counts: Path) -> None:
        super().__init__()
        self.shape, self.limit, self.counts = shape, limit, counts

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Count every Document of the train split; yields nothing."""
        counted: Tally = Tally()
        for doc in data:
            record = doc.metadata["record"]
            if splits.split(self.shape, record, self.limit) == "train":
                counted["characters", record["source"]] += len(doc.text)
        record_counts.save(counted, self.counts, rank)
        yield from ()
