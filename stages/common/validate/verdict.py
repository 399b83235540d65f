"""What becomes of the findings: a report, a refusal, and what later stages will lack."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.common.core import left_out, params, records
from stages.common.runtime import logs
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.text.parquet_writer import row_count
from stages.common.validate.great_expectations import Finding


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
