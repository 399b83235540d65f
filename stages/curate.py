"""Ingested records -> clean, unique, free of personal data and of test questions, mixed by source,
split.

Reads --ingested/<shape>, and as more conversations --extracted, unless `extract` was left out.
Writes --out/<shape>/{train,validation} (questions: --out/questions, whole), --dropped
(`<reason>/<shape>-<task>.jsonl`: every record that is left out, with the reason), --report and
--tables (for plots). Runs on datatrove: LATHE_DATATROVE=infra/datatrove/slurm.yaml
takes the same pipeline to a cluster. A killed run goes on where it stopped.

    python -m stages.curate --ingested data/ingested --extracted data/extracted/conversations
        --out data/curated --dropped data/dropped --report reports/curate.json
        --tables reports/curate
"""

import shutil
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.common.core import checkpoints, left_out, params, records
from stages.common.core.params import StageParams
from stages.common.core.records import Shape
from stages.common.curate import record_counts
from stages.common.curate import report as reports
from stages.common.curate.dedup.duplicates import NearDuplicates
from stages.common.curate.executors import Executor
from stages.common.curate.filters.contamination import Contamination, Index
from stages.common.curate.filters.conversation_checks import TalkRules
from stages.common.curate.filters.heuristics import Rules
from stages.common.curate.filters.quality_classifier import Model, Quality
from stages.common.curate.mixture import Mixture
from stages.common.curate.record_counts import Tally
from stages.common.curate.splits import Splits
from stages.common.runtime import logs, process, whole_files
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.text.parquet_writer import row_count, write_json
from stages.common.tracking import session
from stages.common.tracking.figures import bars
from stages.common.tracking.run import Run

ORDER: tuple[Shape, ...] = ("questions", "documents", "conversations", "comparisons", "prompts", "labelled")


class Mixtures(StageParams):
    """Weights by source, for the shapes that are trained on whole."""

    documents: Mixture = Mixture()
    """Of pretraining."""
    conversations: Mixture = Mixture()
    """Of SFT."""

    def of(self, shape: Shape) -> Mixture:
        """Return the mixture of a shape; of every shape but these two, each source is read once."""
        return self.documents if shape == "documents" else self.conversations if shape == "conversations" else Mixture()


class Params(StageParams):
    """The section `curate` of params.yaml."""

    languages: list[str] = []
    """Documents of other languages (ISO 639-1 codes) are dropped; empty: all stay."""
    heuristics: Rules = Rules()
    """When a document does not read like text."""
    talk: TalkRules = TalkRules()
    """When a conversation or a comparison contradicts itself."""
    quality: Quality = Quality()
    """The classifier that judges sources nobody vouches for."""
    contamination: Contamination = Contamination()
    """What counts as a test question given away."""
    near_duplicates: NearDuplicates = NearDuplicates()
    """When two records say the same."""
    mixture: Mixtures = Mixtures()
    """How often each source is read."""
    splits: Splits
    """How much of each shape is held out, and which shapes share no prompt."""


def asked(
    shape: Shape, settings: Params, model: Model | None, index: Index, others: Mapping[Shape, Path]
) -> dict[str, Any]:
    """Return what each record of a shape is asked, in order: the first reason is why it is left
    out.

    `others` are the prompts of shapes that this one may not repeat.
    """
    from stages.common.curate import drops

    found: dict[str, Any] = {"faults": partial(drops.faulty, shape=shape, rules=settings.talk)}
    if shape == "documents":
        found["language"] = partial(drops.foreign, languages=settings.languages)
        found["heuristics"] = partial(drops.unfit, rules=settings.heuristics)
        if model:
            found["quality"] = partial(drops.poor, settings=settings.quality)
    if shape != "questions":
        found["contamination"] = partial(drops.leaked, shape=shape, index=index)
    if others:
        found["apart"] = partial(drops.serving, shape=shape, others=others)
    return found


def order(wanted: Splits) -> list[Shape]:
    """Return the shapes, each after those whose prompts it may not repeat. Raises ParamsError for a
    circle.
    """
    done: list[Shape] = []
    while len(done) < len(ORDER):
        ready = [shape for shape in ORDER if shape not in done and set(wanted.before(shape)) <= set(done)]
        if not ready:
            raise ParamsError("curate.splits.apart: each waits for the other", where=params.PARAMS_FILE)
        done.append(ready[0])
    return done


def sources(ingested: Path, extracted: Path | None) -> dict[Shape, tuple[Path, ...]]:
    """Return the folders that each shape's records lie in."""
    found: dict[Shape, tuple[Path, ...]] = {shape: (ingested / shape,) for shape in ORDER}
    if extracted is not None and not left_out.reason(extracted):
        found["conversations"] += (extracted,)
    return found


def curate(
    ingested: Path, work: Path, settings: Params, executor: Executor, extracted: Path | None = None
) -> dict[Shape, Tally]:
    """Curate the questions first, then every shape that must not contain them; return the counts by
    shape.
    """
    from stages.common.curate import pipelines
    from stages.common.curate.dedup import key_sets
    from stages.common.curate.filters import quality_classifier
    from stages.common.curate.pipelines import Curation

    found = sources(ingested, extracted)
    model = quality_classifier.of(ingested / "documents", settings.quality, work / "quality.npz")
    index = Index.build([], settings.contamination)
    counts: dict[Shape, Tally] = {}
    done: dict[Shape, Curation] = {}
    for shape in order(settings.splits):
        this = done[shape] = Curation(shape, found[shape], work, executor)
        before = settings.splits.before(shape)
        others: dict[Shape, Path] = {other: done[other].prompts / key_sets.MERGED for other in before}
        checks = asked(shape, settings, model, index, others)
        pipelines.clean(this, checks, model, settings.quality, settings.near_duplicates)
        pipelines.find_duplicates(this, settings.near_duplicates)
        pipelines.hold_out(this, settings.splits.share(shape), settings.mixture.of(shape))
        counts[shape] = record_counts.load(this.folder("counts"))
        if shape == "questions":
            index = Index.build(records.read(this.out), settings.contamination)
    return counts


def publish(work: Path, out: Path, dropped: Path) -> None:
    """Put the finished files where they belong, and remove the work folder: all is done."""
    for source, target in ((work / "out", out), (work / "dropped", dropped)):
        source.mkdir(exist_ok=True)
        for old in [*target.rglob("part-*.parquet"), *target.rglob("*.jsonl")]:
            old.unlink()
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "*.jsonl.*"))
    whole_files.dismissed(work)


def counted(
    ingested: Path, work: Path, settings: Params, extracted: Path | None = None
) -> tuple[dict[Shape, Tally], dict[Shape, Any]]:
    """Curate and return the counts and the report; a sum that is wrong removes what was done.

    Raises DataError.
    """
    found = sources(ingested, extracted)
    try:
        with Executor() as executor:
            counts = curate(ingested, work, settings, executor, extracted)
        return counts, {shape: reports.summary(counts[shape], sum(map(row_count, found[shape]))) for shape in ORDER}
    except DataError as error:
        whole_files.dismissed(work)  # another run would only meet it again
        remedy = "; ".join(filter(None, [error.remedy, "what was done is removed: the next run begins anew"]))
        raise DataError(error.what, where=error.where, remedy=remedy) from error


def main(
    ingested: Annotated[Path, typer.Option(help="Folder with one folder a shape.")],
    out: Annotated[Path, typer.Option(help="Folder for the same shapes, in splits.")],
    dropped: Annotated[Path, typer.Option(help="Folder for the dropped records.")],
    report: Annotated[Path, typer.Option(help="JSON file of counts.")],
    tables: Annotated[Path, typer.Option(help="Folder for the tables that plots are drawn from.")],
    extracted: Annotated[Path | None, typer.Option(help="Folder of more conversations, or left out.")] = None,
) -> None:
    """Clean, compare, mix, split, count."""
    settings = params.load(Params, "curate")
    inputs = {"ingested": ingested}
    if extracted in sources(ingested, extracted)["conversations"]:
        inputs["extracted"] = extracted
    with session.start("curate", params={"curate": settings.model_dump()}, inputs=inputs) as run:
        name = checkpoints.fingerprint("curate", settings.model_dump(), inputs)
        work = checkpoints.ROOT / "curate" / name
        counts, result = counted(ingested, work, settings, extracted)
        model = work / "quality.npz"
        result["documents"]["quality"] = Model.load(model).report if model.exists() else "nothing to learn from"
        write_json(report, result)
        reports.write_tables(tables, result, counts)
        tell(run, result, counts)
        publish(work, out, dropped)
        shutil.rmtree(work.parent)  # what runs of other data or parameters left half done


def tell(run: Run, result: Mapping[Shape, Any], counts: dict[Shape, Tally]) -> None:
    """Track what was kept and dropped, with figures, and name the key figure."""
    reasons = sum((Counter(part["dropped"]) for part in result.values()), Counter[str]())
    kept = {f"kept/{shape}": part["kept"] for shape, part in result.items()}
    run.metrics(kept | {f"dropped/{reason}": number for reason, number in reasons.items()})
    run.figure("dropped", bars(reasons, "records dropped by reason"))
    for measure in reports.MEASURES:
        for shape, found in counts.items():
            if record_counts.under(found, "before", measure):
                title = f"{shape} by {measure}, before and after curation"
                run.figure(f"{shape}-{measure}", reports.before_and_after(found, measure, title))
    lost = {f"dropped/{shape}": sum(part["dropped"].values()) for shape, part in result.items()}
    logs.report(f"{sum(kept.values()):,} records kept, {reasons.total():,} dropped", kept | lost)


if __name__ == "__main__":
    process.run("curate", main)
