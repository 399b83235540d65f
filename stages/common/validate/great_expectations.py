"""Great Expectations as a door: suites are data, findings name rows, Data Docs are the same bytes
each time.

Suites lie in `stages/expectations/<name>.json`, in Great Expectations' own format.
"""

import gc
import html
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.runtime.errors import StageError

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )
    from pandas import DataFrame

SUITES = Path(__file__).parents[2] / "expectations"
IDS_NAMED = 10
RESULT = {
    "result_format": "COMPLETE",  # the only one with which Data Docs name rows
    "unexpected_index_column_names": ["id"],
    "partial_unexpected_count": IDS_NAMED,
    "return_unexpected_index_query": False,
}
SOURCE = "lathe"


@dataclass
class Finding:
    """One expectation of a suite over all the batches it has seen; `rows` are the first that fail:
    id -> value.
    """

    suite: str
    expectation: str
    severity: str
    description: str
    evaluated: int = 0
    unexpected: int = 0
    success: bool = True
    rows: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return the finding as a part of the report."""
        names = ("severity", "success", "evaluated", "unexpected")
        rows = [{"id": name, "found": value} for name, value in self.rows.items()]
        return {name: getattr(self, name) for name in names} | {"rows": rows}


class Door:
    """Checks frames against suites and collects the findings; every frame has a column `id`.

    What Great Expectations finds is kept in `work` until the Data Docs are written.
    """

    def __init__(self, docs: Path, work: Path) -> None:
        import great_expectations as gx

        from stages.common.validate import (  # expectations: once imported, suites may name them
            data_docs_store,
            expectations,  # noqa: F401
        )

        self.docs = docs
        self.findings: dict[tuple[str, str], Finding] = {}
        self.context = gx.get_context(mode="ephemeral", project_config=data_docs_store.config(docs, work))
        self.suites: dict[str, gx.ExpectationSuite] = {}
        gc.collect()
        gc.freeze()  # or each collection looks through all of the library again

    def check(self, suite: str, batch: str, frame: "DataFrame") -> None:
        """Check one frame. Raises StageError when an expectation cannot be evaluated at all."""
        for result in self._results(suite, batch, frame).results:
            self._add(suite, result)
        self.context.data_sources.delete(SOURCE)
        gc.collect()  # a data source keeps its frames, in a circle

    def _results(self, suite: str, batch: str, frame: "DataFrame") -> "ExpectationSuiteValidationResult":
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier

        from stages.common.validate import data_docs_store

        if suite not in self.suites:
            content = json.loads((SUITES / f"{suite}.json").read_text(encoding="utf-8"))
            self.suites[suite] = self.context.suites.add(gx.ExpectationSuite(**content))
        source = self.context.data_sources.add_pandas(SOURCE)
        data = source.add_dataframe_asset(batch).add_batch_definition_whole_dataframe("whole")
        definition = gx.ValidationDefinition(name=f"{suite} on {batch}", data=data, suite=self.suites[suite])
        return self.context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": frame},
            result_format=RESULT,
            run_id=RunIdentifier(run_name="validate", run_time=data_docs_store.EPOCH),
        )

    def write_docs(self) -> None:
        """Write the Data Docs."""
        from stages.common.validate import data_docs_store

        data_docs_store.write(self.context, self.docs)

    def _add(self, suite: str, result: "ExpectationValidationResult") -> None:
        config = result.expectation_config
        if config is None or _raised(result.exception_info):
            raise StageError(f"{suite}: an expectation could not be evaluated: {result.exception_info}", where=SUITES)
        column = str(config.kwargs["column"])
        name = f"{config.type}({column})"
        new = Finding(suite, name, str(config.severity.value), str(config.description or ""))
        finding = self.findings.setdefault((suite, name), new)
        finding.evaluated += result.result.get("element_count", 0)
        finding.unexpected += result.result.get("unexpected_count", 0)
        finding.success &= bool(result.success)
        for row in result.result.get("partial_unexpected_index_list") or []:
            if len(finding.rows) < IDS_NAMED:
                value = row[column]
                finding.rows[html.unescape(str(row["id"]))] = html.unescape(value) if isinstance(value, str) else value


def _raised(info: dict[str, Any]) -> bool:
    return any(bool(part["raised_exception"]) for part in (info, *info.values()) if _tells(part))


def _tells(part: object) -> bool:
    return isinstance(part, dict) and "raised_exception" in part
