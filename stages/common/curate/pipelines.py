"""The datatrove pipelines that one shape goes through: clean, find duplicates, split."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from stages.common.core import records
from stages.common.core.records import Shape
from stages.common.curate import mixture, record_counts, split_steps, splits, steps
from stages.common.curate.dedup import duplicate_steps, key_sets
from stages.common.curate.dedup.duplicates import NearDuplicates
from stages.common.curate.drops import Drop, Drops
from stages.common.curate.executors import Executor
from stages.common.curate.filters.quality_classifier import Model, Quality
from stages.common.curate.mixture import MOST_EPOCHS, Mixture
from stages.common.runtime.logs import log
from stages.common.runtime.whole_files import written_whole
from stages.common.text.parquet_writer import row_count

ROWS_WITH_VALIDATION = 20


@dataclass(frozen=True)
class Curation:
    """One shape on its way: where it comes from, where intermediate files go, and who works
    on it.
    """

    shape: Shape
    found: tuple[Path, ...]
    work: Path
    executor: Executor

    @property
    def out(self) -> Path:
        """Where the finished files of the shape go."""
        return self.work / "out" / self.shape

    @property
    def prompts(self) -> Path:
        """Where the hashes of the shape's prompts are kept, for shapes that may not repeat them."""
        return self.folder("prompts")

    def run(self, name: str, pipeline: list[PipelineStep], tasks: int) -> None:
        """Run one pipeline of this shape; what is done already is not done again."""
        log.debug("%s: %s, %d tasks", self.shape, name, tasks)
        self.executor.run(pipeline, tasks, self.folder("tasks", name))

    def folder(self, *names: str) -> Path:
        """Return a folder for intermediate files of this shape."""
        return self.work.joinpath(self.shape, *names)

    def aside(self, name: str) -> Drops:
        """Return a writer of dropped records that counts under `name`."""
        return Drops(self.work / "dropped", self.shape, self.folder("counts", name))


def clean(
    this: Curation,
    asked: dict[str, Callable[[Document], str]],
    model: Model | None,
    quality: Quality,
    near: NearDuplicates,
) -> None:
    """Make the text uniform, measure it, leave out the records that one of `asked` objects to,
    scrub personal data.
    """
    counts = this.folder("counts")
    found = [one for folder in this.found for one in steps.slices(folder)]
    pipeline = [
        steps.Read(this.shape, found),
        steps.Normalise(this.shape),
        steps.Measure(this.shape, model, quality, counts),
        *(Drop(name, check, this.aside(name)) for name, check in asked.items()),
        *([steps.Scrub(this.shape, counts)] if this.shape != "questions" else []),
        duplicate_steps.WriteKeys(this.shape, this.folder("keys"), near),
        steps.Write(this.shape, this.folder("clean")),
    ]
    this.run("clean", pipeline, len(found))


def find_duplicates(this: Curation, near: NearDuplicates) -> None:
    """Compare all records of the shape by their keys, and choose the best of each cluster."""
    keys, pairs = this.folder("keys"), this.folder("pairs")
    this.run(
        "pairs", [duplicate_steps.FindPairs(this.shape, keys, pairs, near.threshold)], duplicate_steps.partitions(keys)
    )
    this.run("clusters", [duplicate_steps.Cluster(keys, pairs, this.folder("clusters"))], 1)


def split(this: Curation, limit: int, weighed: Mixture) -> None:
    """Take the duplicates out and write each split, as often as the mixture says; hashes below
    `limit` are held out.
    """
    found, clusters, sizes = (
        steps.written(this.folder("clean")),
        this.folder("clusters"),
        this.folder("sizes", str(limit)),
    )
    read, epochs = steps.Read(this.shape, found), dict[str, float]()
    if weighed != Mixture():
        unique = duplicate_steps.RemoveDuplicates(clusters, None)
        this.run(f"sizes-{limit}", [read, unique, split_steps.Sizes(this.shape, limit, sizes)], len(found))
        epochs = mixture.epochs(record_counts.under(record_counts.load(sizes), "characters"), weighed)
        for source, often in mixture.overused(epochs).items():
            log.warning("%s is read %.1f times; beyond %.0f a text teaches less and less", source, often, MOST_EPOCHS)
    unique = duplicate_steps.RemoveDuplicates(clusters, this.aside("duplicates"))
    write = split_steps.Split(this.shape, this.out, limit, epochs, this.aside("mixture"), this.prompts)
    this.run(f"split-{limit}", [read, unique, write], len(found))
    key_sets.merge(this.prompts)


def hold_out(this: Curation, share: float, weighed: Mixture) -> None:
    """Split the shape; if by chance nothing of a small one was held out, hold out the record of the
    smallest hash.

    That the shape is split again is written down first: a killed run must not take the second split
    for the first.
    """
    again = this.folder("held_out.json")
    if not again.exists():
        split(this, splits.limit(share), weighed)
        train = this.out / "train"
        if not share or row_count(this.out / "validation") or row_count(train) < ROWS_WITH_VALIDATION:
            return
        hashes = {splits.value(this.shape, record) for record in records.read(train)}
        if len(hashes) < 2:
            return
        log.info("%s: by chance nothing was held out; holding out the smallest hash", this.shape)
        with written_whole(again) as own:
            own.write_text(json.dumps(min(hashes) + 1))
    split(this, json.loads(again.read_text()), weighed)
