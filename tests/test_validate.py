"""The door: what passes is handed over byte for byte, what must not pass is named by row."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.common.core.records import SHAPES, Record
from stages.common.curate.executors import Executor
from stages.common.runtime.errors import EXIT_DATA, DataError
from stages.common.text.parquet_writer import write as write_records
from stages.common.validate.great_expectations import Door, Finding
from stages.common.validate.verdict import refuse, summary
from stages.validate import Promised, check, hand_over
from tests.support.validate_faults import (
    FAULTS,
    FAULTY,
    FOLDERS,
    LEAK,
    SUITE_OF,
    sound,
)


def lay(curated: Path, changed: dict[str, list[Record]] | None = None) -> Path:
    """Write two sound records to every folder of `curated`, or what `changed` says for it."""
    for folder in FOLDERS:
        rows = (changed or {}).get(folder, [sound(folder, 1), sound(folder, 2)])
        write_records(rows, curated / folder, next(shape for shape in SHAPES if shape == folder.split("/")[0]))
    return curated


def found_in(curated: Path, apart: list[list[str]] | None = None, docs: str = "docs") -> list[Finding]:
    """Check what lies in `curated`, in this process, and write the Data Docs beside it."""
    (curated.parent / "executor.yaml").write_text("executor: local\nworkers: 1\n")
    shares = {shape: {"validation": 0.1} for shape in SHAPES if shape not in ("questions", "labelled")}
    promised = Promised.model_validate({"splits": shares | {"apart": apart or []}})
    work = curated.parent / f"work-{docs}"
    with Executor(curated.parent / "executor.yaml") as executor:
        findings = check(curated, work, promised, door := Door(curated.parent / docs, work), executor)
    door.write_docs()
    return findings


def failed(findings: list[Finding]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(found.suite, found.expectation, found.severity): found.rows for found in findings if not found.success}


def test_sound_records_pass_and_are_handed_over_byte_for_byte(tmp_path: Path) -> None:
    curated = lay(tmp_path / "curated", {"prompts/train": []})
    findings = found_in(curated)
    refuse(findings, tmp_path / "docs")
    assert failed(findings) == {}
    assert {found.evaluated for found in findings if found.suite == "documents"} == {4}
    assert {found.evaluated for found in findings if found.suite == "ids"} == {2 * len(FOLDERS) - 2}
    assert hand_over(curated, tmp_path / "out") == 2 * len(FOLDERS) - 2
    for file in curated.rglob("*.parquet"):
        assert (tmp_path / "out" / file.relative_to(curated)).read_bytes() == file.read_bytes()


@pytest.fixture(scope="module")
def findings_of_faults(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """All faults in one set of data, which is checked once, every failure by itself."""
    rows = {folder: [sound(folder, 1), sound(folder, 2)] for folder in FOLDERS}
    for folder, record, _ in FAULTY:
        rows[folder].append(record)
    curated = lay(tmp_path_factory.mktemp("faults") / "curated", rows)
    return found_in(curated, apart=[["conversations", "prompts"]])


@pytest.mark.parametrize(("folder", "record", "expected"), FAULTY)
def test_each_fault_is_found_in_its_row(
    folder: str, record: Record, expected: dict[str, Any], findings_of_faults: list[Finding]
) -> None:
    shape, name = folder.split("/")[0], str(record["id"])
    of_shape = [found for found in findings_of_faults if found.suite == SUITE_OF.get(found.expectation, shape)]
    assert {found.expectation: found.rows[name] for found in of_shape if name in found.rows} == expected


def test_no_sound_row_is_found_and_every_failure_is_counted(findings_of_faults: list[Finding]) -> None:
    named = [name for finding in findings_of_faults for name in finding.rows]
    assert len(named) == sum(len(expected) for *_, expected in FAULTS)
    assert sum(finding.unexpected for finding in findings_of_faults) == len(named)
    assert set(named) == {str(record["id"]) for _, record, expected in FAULTY if expected}


def finding(severity: str, **own: Any) -> Finding:
    return Finding("documents", "expect_x(text)", severity, "Texts are x.", 9, 2, own.pop("success", False), **own)


def test_a_critical_failure_is_an_error_that_names_suite_expectation_and_rows() -> None:
    findings = [finding("warning"), finding("critical", rows={"a.txt:3": "x", "b.txt:1": 7}), finding("critical")]
    with pytest.raises(DataError) as refusal:
        refuse(findings, Path("docs"))
    assert refusal.value.code == EXIT_DATA
    assert str(refusal.value) == (
        "a.txt:3: suite documents: expect_x(text) – Texts are x. 2 of 9 rows fail (a.txt:3: x, b.txt:1: 7)"
        " (and 1 more critical failures); mend or remove these rows in data/raw; all failures: docs/index.html"
    )


def test_a_warning_only_warns(caplog: pytest.LogCaptureFixture) -> None:
    refuse([finding("warning", rows={"a.txt:3": 9}), finding("critical", success=True)], Path("docs"))
    assert [record.message for record in caplog.records] == [
        "warning documents: expect_x(text) – Texts are x. 2 of 9 rows fail (a.txt:3: 9)"
    ]


def test_the_first_ten_rows_of_many_are_named_over_all_files(tmp_path: Path) -> None:
    rows = [{"id": f"a.txt:{line}", "source": "a.txt", "text": ""} for line in range(1, 9)]
    more = [row | {"id": f"b{row['id']}"} for row in rows]
    curated = lay(tmp_path / "curated", {"documents/train": rows, "documents/validation": more})
    found = next(found for found in found_in(curated) if "empty" in found.expectation)
    assert (found.evaluated, found.unexpected) == (16, 16)
    assert list(found.rows) == [row["id"] for row in rows] + ["ba.txt:1", "ba.txt:2"]


def test_wrong_columns_stop_the_check_before_any_record_is_read(tmp_path: Path) -> None:
    curated = lay(tmp_path / "curated")
    table = pa.table({"id": ["a:1"], "source": ["a"], "text": [7], "extra": ["x"]})
    pq.write_table(table, curated / "documents/train/part-00000.parquet")
    findings = found_in(curated)
    file = "documents/train/part-00000.parquet"
    expected = ("schema", "expect_columns_of_the_shape(difference)", "critical")
    told = {f"{file}:extra": "string instead of nothing", f"{file}:text": "int64 instead of string"}
    assert failed(findings) == {expected: told}
    assert {found.suite for found in findings} == {"schema"}


def test_the_report_and_the_docs_are_the_same_bytes_each_time_and_show_no_text_of_the_data(tmp_path: Path) -> None:
    row = sound("documents/train", 1) | {"id": "<script>alert(1)</script>.txt:1", "text": "What about questions 1?"}
    asked = sound("questions", 1) | {"id": "<b>bold</b>.jsonl:1"}
    curated = lay(tmp_path / "curated", {"documents/train": [row], "questions": [asked]})
    (tmp_path / "a/validations").mkdir(parents=True)
    (tmp_path / "a/validations/old.html").write_text("of a run before")
    reports = [summary(found_in(curated, docs=name)) for name in "ab"]
    pages = [
        {
            file.relative_to(tmp_path / name): file.read_bytes()
            for file in (tmp_path / name).rglob("*.*")
            if file.is_file()
        }
        for name in "ab"
    ]
    assert reports[0] == reports[1] and pages[0] == pages[1]
    text = b"".join(content for path, content in pages[0].items() if path.suffix == ".html").decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.txt:1" in text
    assert "&lt;b&gt;bold&lt;/b&gt;.jsonl:1" in text
    assert "<script>alert" not in text and "<b>bold" not in text
    assert "What about" not in text and str(tmp_path) not in text
    leak = [{"id": "<script>alert(1)</script>.txt:1", "found": "<b>bold</b>.jsonl:1"}]
    assert reports[0]["documents"][LEAK]["rows"] == leak


def test_a_shape_that_is_missing_is_named(tmp_path: Path) -> None:
    curated = lay(tmp_path / "curated")
    shutil.rmtree(curated / "prompts")
    with pytest.raises(DataError, match="prompts: no Parquet files here"):
        found_in(curated)
