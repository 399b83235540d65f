"""The door to the trainers: Great Expectations over every shape, split and file; a critical failure
stops the run.

Reads --curated/<shape>. Writes --report (by suite and expectation, without times), --docs (Data
Docs) and, only when no critical expectation fails, the same files byte for byte under
--out/<shape>. Suites, as data: stages/expectations (schema, one a shape, what records share,
sources, categories).

    python -m stages.validate --curated data/curated --out data/validated
        --report reports/validate.json --docs reports/data_docs
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import ConfigDict

from stages.common.core import checkpoints, params, records
from stages.common.core.params import StageParams
from stages.common.core.records import SHAPES, Shape
from stages.common.curate import record_counts
from stages.common.curate.executors import Executor
from stages.common.curate.filters.contamination import Contamination, Index
from stages.common.curate.splits import Splits
from stages.common.runtime import logs, process
from stages.common.text.parquet_writer import row_count, write_json
from stages.common.tracking import session
from stages.common.tracking.figures import bars
from stages.common.validate import cross_record_checks, shares, verdict
from stages.common.validate.features import FACTS_OF_COLUMNS, Facts, facts_of_columns
from stages.common.validate.great_expectations import Door, Finding

if TYPE_CHECKING:
    from pandas import DataFrame


class Params(StageParams):
    """The section `validate` of params.yaml; what is expected stands in the suites."""

    lacking: Literal["stop", "leave_out"] = "stop"
    """A later stage without comparisons, prompts or answers that differ stops, or is left out and
    says why.
    """


class Promised(StageParams):
    """What the section `curate` says of its output, and validation holds it to."""

    model_config = ConfigDict(extra="ignore")
    contamination: Contamination = Contamination()
    """What counts as a test question given away."""
    splits: Splits
    """Which shapes share no prompt."""


def frame(rows: Iterable[Facts], columns: Sequence[str]) -> "DataFrame":
    """Return facts as a frame that has its columns even when there are no rows."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns), dtype=object)


def look(curated: Path, work: Path, promised: Promised, executor: Executor) -> None:
    """Look at every record once, file by file on all workers; facts, keys and counts go to
    `work`.
    """
    from stages.common.validate import steps

    work.mkdir(parents=True, exist_ok=True)
    Index.build(records.read(curated / "questions"), promised.contamination).save(work / "questions.npz")
    step = steps.Look(curated, work / "questions.npz", work)
    executor.run([step], len(step.parts), work / "records")


def check_files(curated: Path, work: Path, door: Door) -> None:
    """Check every record by itself, a file at a time."""
    import pandas as pd

    from stages.common.validate import steps

    for number, part in enumerate(steps.parts(curated)):
        found = cross_record_checks.plain(pd.read_parquet(work / "facts" / f"{number:06d}.parquet"))
        door.check(part.shape, f"{part.shape}.{part.split}.{part.file.stem}", found)


def check_across(curated: Path, work: Path, promised: Promised, door: Door) -> None:
    """Check what records share with each other, a part of their keys at a time."""
    before: dict[Shape, Sequence[str]] = {
        shape: promised.splits.before(shape) for shape in SHAPES if shape not in ("documents", "questions")
    }
    for part in range(cross_record_checks.parts(sum(row_count(curated / shape) for shape in SHAPES))):
        door.check(
            "ids", f"ids.{part:05d}", cross_record_checks.facts_of_ids(cross_record_checks.read(work, "ids", part))
        )
        shared = cross_record_checks.facts_of_contents(cross_record_checks.read(work, "contents", part), before)
        door.check("contents", f"contents.{part:05d}", shared)


def check(curated: Path, work: Path, promised: Promised, door: Door, executor: Executor) -> list[Finding]:
    """Check the columns and, where they are right, every record, and the whole; return the
    findings.
    """
    door.check("schema", "schema", frame(facts_of_columns(curated), FACTS_OF_COLUMNS))
    if all(finding.success for finding in door.findings.values()):
        look(curated, work, promised, executor)
        check_files(curated, work, door)
        check_across(curated, work, promised, door)
        counted = record_counts.load(work / "counts")
        door.check("sources", "sources", frame(shares.facts_of_sources(counted), shares.FACTS_OF_SOURCES))
        door.check("categories", "categories", frame(shares.facts_of_categories(counted), shares.FACTS_OF_CATEGORIES))
    return list(door.findings.values())


def hand_over(curated: Path, out: Path) -> int:
    """Copy every file of every shape, byte for byte; return the number of records."""
    for shape in SHAPES:
        for file in records.files(curated / shape):
            target = out / file.relative_to(curated)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return sum(row_count(out / shape) for shape in SHAPES)


def main(
    curated: Annotated[Path, typer.Option(help="Folder with one folder a shape.")],
    out: Annotated[Path, typer.Option(help="Folder for the same files, once they have passed.")],
    report: Annotated[Path, typer.Option(help="JSON file of findings.")],
    docs: Annotated[Path, typer.Option(help="Folder for the Data Docs.")],
) -> None:
    """Close the door, check, report, refuse or hand over."""
    params.load(Params, "validate")
    promised = params.load(Promised, "curate")
    with session.start("validate", inputs={"curated": curated}) as run, Executor() as executor:
        for old in out.rglob("part-*.parquet"):
            old.unlink()
        name = checkpoints.fingerprint("validate", promised.model_dump(), {"curated": curated})
        work = checkpoints.ROOT / "validate" / name
        findings = check(curated, work, promised, door := Door(docs, work), executor)
        door.write_docs()
        shutil.rmtree(work.parent, ignore_errors=True)  # what other runs left half done as well
        write_json(report, verdict.summary(findings))
        unexpected = {f"{finding.suite}/{finding.expectation}": finding.unexpected for finding in findings}
        run.metrics({"expectations": len(findings), "unexpected": sum(unexpected.values())})
        failing = {name: count for name, count in unexpected.items() if count}
        run.figure("unexpected", bars(failing, "rows that fail, by expectation"))
        verdict.refuse(findings, docs)
        verdict.foresee(curated)
        told = {"expectations": len(findings), "unexpected": sum(unexpected.values()), "failing": len(failing)}
        told["records"] = hand_over(curated, out)
        logs.report(f"{len(findings)} expectations, {told['records']:,} records let through", told)


if __name__ == "__main__":
    process.run("validate", main)
