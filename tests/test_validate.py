"""The door: what passes is handed over byte for byte, what must not pass is named by row."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.common import records
from stages.common.errors import EXIT_DATA, DataError
from stages.common.expectations import SUITES, Door, Finding, settled
from stages.common.records import SHAPES, Record, message
from stages.common.shards import write as write_records
from stages.validate import check, hand_over, refuse, summary

USER, ANSWER = message("user", "Hi"), message("assistant", "Hello.")
FOLDERS = [f"{shape}/{split}" for shape in SHAPES[:4] for split in records.SPLITS] + ["questions"]


def sound(folder: str, line: int) -> Record:
    """Return a sound record unlike any other."""
    turns = [message("user", f"What about {folder} {line}?")]
    own: dict[str, Record] = {
        "documents": {"text": f"Text of {folder} {line}."},
        "conversations": {"messages": [*turns, ANSWER], "tools": None},
        "comparisons": {"prompt": turns, "responses": ["a", "b", "c"], "ranks": [1, 2, 2]},
        "prompts": {"messages": turns, "category": "x"},
        "questions": {"messages": turns, "reference": "r", "group": "iid"},
    }
    return {"id": f"{folder}:{line}", "source": folder} | own[folder.split("/")[0]]


def lay(curated: Path, changed: dict[str, list[Record]] | None = None) -> Path:
    """Write two sound records to every folder of `curated`, or what `changed` says for it."""
    for folder in FOLDERS:
        rows = (changed or {}).get(folder, [sound(folder, 1), sound(folder, 2)])
        write_records(rows, curated / folder, next(shape for shape in SHAPES if shape == folder.split("/")[0]))
    return curated


def found_in(curated: Path) -> list[Finding]:
    return check(curated, Door(curated.parent / "docs"))


def failed(findings: list[Finding]) -> dict[tuple[str, str, str], list[str]]:
    return {(found.suite, found.expectation, found.severity): found.ids for found in findings if not found.success}


def test_sound_records_pass_and_are_handed_over_byte_for_byte(tmp_path: Path) -> None:
    curated = lay(tmp_path / "curated", {"prompts/train": []})
    findings = found_in(curated)
    refuse(findings, tmp_path / "docs")
    assert failed(findings) == {}
    assert {found.evaluated for found in findings if found.suite == "documents"} == {4}
    assert hand_over(curated, tmp_path / "out") == 2 * len(FOLDERS) - 2
    for file in curated.rglob("*.parquet"):
        assert (tmp_path / "out" / file.relative_to(curated)).read_bytes() == file.read_bytes()


NULL, BETWEEN, REGEX = (
    "expect_column_values_to_be_null",
    "expect_column_values_to_be_between",
    "expect_column_values_to_match_regex",
)
PAIR = "expect_column_pair_values"
CALL = message("assistant", "", tool_calls=[{"name": "f", "arguments": "{}"}])
TOLD = [message("system", "s"), USER, CALL, message("tool", "t"), ANSWER]
FAULTS: list[tuple[str, Record, set[str]]] = [
    ("documents/train", {"id": None}, {"expect_column_values_to_not_be_null(id)"}),
    ("documents/train", {"id": "no line"}, {f"{REGEX}(id)"}),
    ("documents/train", {"source": None}, {"expect_column_values_to_not_be_null(source)"}),
    ("documents/train", {"text": " \n"}, {f"{BETWEEN}(characters)"}),
    ("documents/train", {"text": None}, {f"{BETWEEN}(characters)"}),
    ("documents/train", {"text": "So. What about questions 2? Well."}, {f"{NULL}(test_question)"}),
    ("documents/train", {"text": "Text of documents/train 1."}, {f"{NULL}(same_content)"}),
    ("documents/validation", {"text": "Text of documents/train 2."}, {f"{NULL}(other_split)"}),
    ("documents/validation", {"id": "documents/train:2"}, {f"{NULL}(same_id)"}),
    ("conversations/train", {"messages": [USER, message("assistant", " ")]}, {f"{BETWEEN}(empty_turns)"}),
    ("conversations/train", {"messages": [USER]}, {f"{REGEX}(roles)"}),
    ("conversations/train", {"messages": [ANSWER, USER]}, {f"{REGEX}(roles)"}),
    ("conversations/train", {"messages": []}, {f"{REGEX}(roles)"}),
    ("conversations/train", {"messages": None}, {f"{REGEX}(roles)"}),
    ("conversations/train", {"messages": [*TOLD[:3], ANSWER]}, {f"{REGEX}(roles)"}),
    ("conversations/train", {"messages": TOLD}, set()),
    (
        "conversations/validation",
        {"messages": sound("conversations/train", 2)["messages"]},
        {f"{NULL}(other_split)"},
    ),
    ("comparisons/train", {"prompt": [USER, ANSWER]}, {f"{REGEX}(roles)"}),
    (
        "comparisons/train",
        {"responses": ["a"], "ranks": [1]},
        {f"{BETWEEN}({name})" for name in ("responses", "different_responses", "highest_rank")},
    ),
    ("comparisons/train", {"responses": ["a", "", "c"]}, {f"{BETWEEN}(empty_responses)"}),
    ("comparisons/train", {"ranks": [1, 2]}, {f"{PAIR}_to_be_equal(ranks, responses)"}),
    ("comparisons/train", {"ranks": [0, 1, 2]}, {f"{BETWEEN}(lowest_rank)"}),
    ("comparisons/train", {"ranks": [1, 2, 4]}, {f"{PAIR}_a_to_be_greater_than_b(responses, highest_rank)"}),
    ("comparisons/train", {"ranks": [1, 1, 1]}, {f"{BETWEEN}(highest_rank)"}),
    ("comparisons/train", {"responses": ["a", "a", "a"]}, {f"{BETWEEN}(different_responses)"}),
    ("prompts/train", {"messages": [USER, ANSWER]}, {f"{REGEX}(roles)"}),
    ("prompts/train", {"messages": [message("user", "what  about QUESTIONS 1?")]}, {f"{NULL}(test_question)"}),
    ("questions", {"messages": [message("user", "Who?"), ANSWER]}, {f"{REGEX}(roles)"}),
    ("questions", {"reference": "  "}, {f"{BETWEEN}(reference_characters)"}),
    ("questions", {"group": None}, {f"{BETWEEN}(group_characters)"}),
]
FAULTY = [
    (folder, sound(folder, line) | change, expected) for line, (folder, change, expected) in enumerate(FAULTS, 10)
]


@pytest.fixture(scope="module")
def findings_of_faults(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """All faults in one set of data, which is checked once."""
    rows = {folder: [sound(folder, 1), sound(folder, 2)] for folder in FOLDERS}
    for folder, record, _ in FAULTY:
        rows[folder].append(record)
    return found_in(lay(tmp_path_factory.mktemp("faults") / "curated", rows))


@pytest.mark.parametrize(("folder", "record", "expected"), FAULTY)
def test_each_fault_is_found_in_its_row(
    folder: str, record: Record, expected: set[str], findings_of_faults: list[Finding]
) -> None:
    of_shape = [finding for finding in findings_of_faults if finding.suite == folder.split("/")[0]]
    assert {finding.expectation for finding in of_shape if str(record["id"]) in finding.ids} == expected


def test_no_sound_row_is_found_and_every_failure_is_counted(findings_of_faults: list[Finding]) -> None:
    named = [name for finding in findings_of_faults for name in finding.ids]
    assert len(named) == sum(len(expected) for *_, expected in FAULTS)
    assert sum(finding.unexpected for finding in findings_of_faults) == len(named)
    assert set(named) == {str(record["id"]) for _, record, expected in FAULTY if expected}


def finding(severity: str, **own: Any) -> Finding:
    return Finding("documents", "expect_x(text)", severity, "Texts are x.", 9, 2, own.pop("success", False), **own)


def test_a_critical_failure_is_an_error_that_names_suite_expectation_and_rows() -> None:
    findings = [finding("warning"), finding("critical", ids=["a.txt:3", "b.txt:1"]), finding("critical")]
    with pytest.raises(DataError) as refusal:
        refuse(findings, Path("docs"))
    assert refusal.value.code == EXIT_DATA
    assert str(refusal.value) == (
        "a.txt:3: suite documents: expect_x(text) – Texts are x. 2 of 9 rows fail (a.txt:3, b.txt:1)"
        " (and 1 more critical failures); mend or remove these rows in data/raw; all failures: docs/index.html"
    )


def test_a_warning_only_warns(caplog: pytest.LogCaptureFixture) -> None:
    refuse([finding("warning", ids=["a.txt:3"]), finding("critical", success=True)], Path("docs"))
    assert [record.message for record in caplog.records] == [
        "warning documents: expect_x(text) – Texts are x. 2 of 9 rows fail (a.txt:3)"
    ]


def test_the_first_ten_rows_of_many_are_named_over_all_files(tmp_path: Path) -> None:
    rows = [{"id": f"a.txt:{line}", "source": "a.txt", "text": ""} for line in range(1, 9)]
    more = [row | {"id": f"b{row['id']}"} for row in rows]
    curated = lay(tmp_path / "curated", {"documents/train": rows, "documents/validation": more})
    found = next(found for found in found_in(curated) if "characters" in found.expectation)
    assert (found.evaluated, found.unexpected) == (16, 16)
    assert found.ids == [row["id"] for row in rows] + ["ba.txt:1", "ba.txt:2"]


def test_wrong_columns_stop_the_check_before_any_record_is_read(tmp_path: Path) -> None:
    curated = lay(tmp_path / "curated")
    table = pa.table({"id": ["a:1"], "source": ["a"], "text": [7], "extra": ["x"]})
    pq.write_table(table, curated / "documents/train/part-00000.parquet")
    findings = found_in(curated)
    file = "documents/train/part-00000.parquet"
    expected = ("schema", "expect_column_pair_values_to_be_equal(found, wanted)", "critical")
    assert failed(findings) == {expected: [f"{file}:extra", f"{file}:text"]}
    assert {found.suite for found in findings} == {"schema"}


def test_the_report_and_the_docs_are_the_same_bytes_each_time_and_show_no_text_of_the_data(tmp_path: Path) -> None:
    row = sound("documents/train", 1) | {"id": "<script>alert(1)</script>.txt:1", "text": "What about questions 1?"}
    asked = sound("questions", 1) | {"id": "<b>bold</b>.jsonl:1"}
    curated = lay(tmp_path / "curated", {"documents/train": [row], "questions": [asked]})
    (tmp_path / "a/validations").mkdir(parents=True)
    (tmp_path / "a/validations/old.html").write_text("of a run before")
    reports = []
    for name in "ab":
        reports.append(summary(check(curated, door := Door(tmp_path / name))))
        door.write_docs()
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
    assert reports[0]["documents"][f"{NULL}(test_question)"]["ids"] == ["<script>alert(1)</script>.txt:1"]


def test_pages_keep_no_time_no_time_zone_and_no_random_id() -> None:
    page = 'x 20261121T032732.739206Z y 2000-01-01 08:00:00 CST z 1999-12-31T19:00:00Z <img src="https://a.b/logo-long.png?d=2"'
    one = "826df3a3-ac70-4bea-aa91-82666ebcc62b"
    two = one.replace("8", "9")
    assert settled(f"{page} {one} {two} {one}", "logo.png") == (
        "x 20000101T000000.000000Z y 2000-01-01 00:00:00 UTC z 2000-01-01 00:00:00 UTC "
        '<img src="logo.png" id-0 id-1 id-0'
    )


def test_a_shape_that_is_missing_is_named(tmp_path: Path) -> None:
    curated = lay(tmp_path / "curated")
    shutil.rmtree(curated / "prompts")
    with pytest.raises(DataError, match="prompts: no Parquet files here"):
        found_in(curated)


@pytest.mark.parametrize("file", sorted(SUITES.glob("*.json")), ids=lambda path: path.stem)
def test_a_suite_says_what_each_expectation_is_for_and_names_none_twice(file: Path) -> None:
    suite: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert suite["name"] == file.stem
    assert all(entry["description"] and entry["severity"] in ("critical", "warning") for entry in suite["expectations"])
    names = [
        (entry["type"], *(entry["kwargs"].get(key) for key in ("column", "column_A", "column_B")))
        for entry in suite["expectations"]
    ]
    assert len(names) == len(set(names))


def test_there_is_a_suite_for_every_shape() -> None:
    assert {file.stem for file in SUITES.glob("*.json")} == {*SHAPES, "schema"}
