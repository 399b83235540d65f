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
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ConfigDict

from stages.common.core import checkpoints, left_out, params, records
from stages.common.core.params import StageParams
from stages.common.core.records import SHAPES, Shape
from stages.common.curate import record_counts
from stages.common.curate.executors import Executor
from stages.common.curate.filters.contamination import Contamination, Index
from stages.common.curate.splits import Splits
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.runtime.figures import bars
from stages.common.text.parquet_writer import row_count, write_json
from stages.common.tracking import session
from stages.common.validate import cross_record_checks, shares
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


def summary(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the report: suite -> expectation -> severity, success, counts and the first rows that
    fail.
    """
    report: dict[str, Any] = {}
    for finding in findings:
        report.setdefault(finding.suite, {})[finding.expectation] = finding.summary()
    return report


def refuse(findings: Iterable[Finding], docs: Path) -> None:
    """Log every warning. Raises DataError for the first critical failure, naming suite, expectation
    and rows.
    """
    failed = [finding for finding in findings if not finding.success]
    for finding in failed:
        logs.log.warning("%s %s: %s", finding.severity, finding.suite, told(finding))
    critical = [finding for finding in failed if finding.severity == "critical"]
    if critical:
        first, more = critical[0], f" (and {len(critical) - 1} more critical failures)" if critical[1:] else ""
        where = next(iter(first.rows), first.suite)
        remedy = f"mend or remove these rows in data/raw; all failures: {docs}/index.html"
        raise DataError(f"suite {first.suite}: {told(first)}{more}", where=where, remedy=remedy)


def told(finding: Finding) -> str:
    """Return a failure in a sentence."""
    rows = ", ".join(f"{name}: {value}" for name, value in finding.rows.items())
    return (
        f"{finding.expectation} – {finding.description} {finding.unexpected} of {finding.evaluated} rows fail ({rows})"
    )


def foresee(curated: Path) -> None:
    """Say what `sample` will lack; raise DataError where that is not allowed, before anything is
    trained for hours.

    Raises ParamsError when no question is of the group that `promote.metric` is the accuracy of.
    """
    document = params.plain(params.read_yaml(params.PARAMS_FILE))
    kind, _, cell = str((document.get("promote") or {}).get("metric", "")).partition("/")
    groups = {"prompts", *(row["group"] for row in records.read(curated / "questions"))}
    if kind == "accuracy" and cell.split("/")[0] not in groups:
        what = f"'promote.metric' is {kind}/{cell}, but no question is of that group"
        remedy = f"bring some, or judge by perplexity/conversations; groups: {', '.join(sorted(groups))}"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy=remedy)
    asked = (document.get("sample") or {}).get("from_conversations")
    if asked is None:
        return
    shapes = ("prompts", "conversations") if asked else ("prompts",)
    for split in records.SPLITS:
        if not any(row_count(curated / shape / split) for shape in shapes):
            what = f"{split}: no {' and no '.join(shapes)}, so nothing to sample answers to"
            remedy = "bring prompts, raise curate.splits, or set sample.from_conversations"
            with left_out.allowed():
                raise left_out.LackError(what, where=curated / shapes[0], remedy=remedy)


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
        write_json(report, summary(findings))
        unexpected = {f"{finding.suite}/{finding.expectation}": finding.unexpected for finding in findings}
        run.metrics({"expectations": len(findings), "unexpected": sum(unexpected.values())})
        failing = {name: count for name, count in unexpected.items() if count}
        run.figure("unexpected", bars(failing, "rows that fail, by expectation"))
        refuse(findings, docs)
        foresee(curated)
        logs.report(f"{len(findings)} expectations, {hand_over(curated, out):,} records let through")


if __name__ == "__main__":
    process.run("validate", main)
