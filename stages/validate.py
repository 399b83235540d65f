"""The door to the trainers: Great Expectations over every shape, split and file; a critical failure stops the run.

Reads --curated/<shape>. Writes --report (by shape and expectation, without times), --docs (Data Docs) and, only when no
critical expectation fails, the same files byte for byte under --out/<shape>. Suites: stages/expectations/<shape>.json

    python -m stages.validate --curated data/curated --out data/validated
        --report reports/validate.json --docs reports/data_docs
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.common import content, facts, journal, params, process, records, tracking
from stages.common.errors import DataError
from stages.common.expectations import Door, Finding
from stages.common.facts import Fact, Seen
from stages.common.figures import bars
from stages.common.params import StageParams
from stages.common.progress import Progress
from stages.common.records import SHAPES, Shape
from stages.common.shards import row_count, schema, write_json

if TYPE_CHECKING:
    from pandas import DataFrame


class Params(StageParams):
    """The section `validate` of params.yaml; what is expected stands in the suites."""


def shards(folder: Path) -> list[tuple[str, Path]]:
    """Return the files of a shape with their split (`whole` where there are none), in order."""
    return [(file.parent.name if file.parent != folder else "whole", file) for file in records.files(folder)]


def frame(rows: Iterable[dict[str, Fact]], columns: list[str]) -> "DataFrame":
    """Return facts as a frame that has its columns even when there are no rows."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=columns, dtype=object)


def schema_facts(curated: Path) -> Iterator[dict[str, Fact]]:
    """Yield for every column of every file the type it has and the one it should have; "" where there is none."""
    for shape in SHAPES:
        wanted = {field.name: field.type for field in records.SCHEMAS[shape]}
        for _, file in shards(curated / shape):
            found = {field.name: field.type for field in schema(file)}
            for name in sorted(wanted | found):
                right = found.get(name) == wanted.get(name)  # equal types may be spelt differently
                yield {
                    "id": facts.escaped(f"{file.relative_to(curated).as_posix()}:{name}"),
                    "found": str(wanted[name] if right else found.get(name, "")),
                    "wanted": str(wanted.get(name, "")),
                }


def check_shape(door: Door, shape: Shape, folder: Path, seen: Seen, progress: Progress) -> None:
    """Check the files of a shape one by one; memory holds the facts of one and two digests a record."""
    for split, file in shards(folder):
        found = facts.rows(shape, split, progress.over(records.read_file(file)), seen)
        door.check(shape, f"{shape}.{split}.{file.stem}", frame(found, facts.columns(shape)))


def check(curated: Path, door: Door) -> list[Finding]:
    """Check the columns and, where they are right, every record; return the findings."""
    door.check("schema", "schema", frame(schema_facts(curated), ["id", "found", "wanted"]))
    if all(finding.success for finding in door.findings.values()):
        progress = Progress(sum(row_count(curated / shape) for shape in SHAPES))
        questions = {
            asked: record["id"]
            for record in records.read(curated / "questions")
            for asked in content.asked("questions", record)
        }
        for shape in SHAPES:
            check_shape(door, shape, curated / shape, Seen(questions), progress)
    return list(door.findings.values())


def summary(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the report: shape -> expectation -> severity, success, counts and the first rows that fail."""
    report: dict[str, Any] = {}
    for finding in findings:
        report.setdefault(finding.suite, {})[finding.expectation] = finding.summary()
    return report


def refuse(findings: Iterable[Finding], docs: Path) -> None:
    """Log every warning. Raises DataError for the first critical failure, naming suite, expectation and rows."""
    failed = [finding for finding in findings if not finding.success]
    for finding in failed:
        journal.log.warning("%s %s: %s", finding.severity, finding.suite, told(finding))
    critical = [finding for finding in failed if finding.severity == "critical"]
    if critical:
        first, more = critical[0], f" (and {len(critical) - 1} more critical failures)" if critical[1:] else ""
        where = first.ids[0] if first.ids else first.suite
        remedy = f"mend or remove these rows in data/raw; all failures: {docs}/index.html"
        raise DataError(f"suite {first.suite}: {told(first)}{more}", where=where, remedy=remedy)


def told(finding: Finding) -> str:
    """Return a failure in a sentence."""
    rows = f"{finding.unexpected} of {finding.evaluated} rows fail ({', '.join(finding.ids)})"
    return f"{finding.expectation} – {finding.description} {rows}"


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
    with tracking.start("validate", inputs={"curated": curated}) as run:
        for old in out.rglob("part-*.parquet"):
            old.unlink()
        findings = check(curated, door := Door(docs))
        door.write_docs()
        write_json(report, summary(findings))
        unexpected = {f"{finding.suite}/{finding.expectation}": finding.unexpected for finding in findings}
        run.metrics({"expectations": len(findings), "unexpected": sum(unexpected.values())})
        failing = {name: count for name, count in unexpected.items() if count}
        run.figure("unexpected", bars(failing, "rows that fail, by expectation"))
        refuse(findings, docs)
        journal.report(f"{len(findings)} expectations, {hand_over(curated, out):,} records let through")


if __name__ == "__main__":
    process.run("validate", main)
