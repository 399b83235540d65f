"""Records and objects sorted into files while they stream."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stages.common.core import records
from stages.common.runtime.errors import DataError
from stages.common.text import parquet_writer
from stages.common.text.parquet_writer import JsonLines, Shards, row_count, schema, write_json


def document(number: int) -> records.Record:
    return {"id": f"a.txt:{number}", "source": "a.txt", "text": f"Text {number}."}


def test_each_folder_gets_its_records_in_order_and_files_of_a_limited_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_writer, "RECORDS_PER_GROUP", 2)
    monkeypatch.setattr(parquet_writer, "RECORDS_PER_FILE", 4)
    odd, even = tmp_path / "odd", tmp_path / "even"
    with Shards({odd: "documents", even: "documents"}) as writer:
        for number in range(18):
            writer.add(odd if number % 2 else even, document(number))
    assert list(records.read(odd)) == [document(number) for number in range(1, 18, 2)]
    assert [file.name for file in records.files(odd)] == [f"part-0000{part}.parquet" for part in range(3)]
    assert [pq.read_metadata(file).num_rows for file in records.files(odd)] == [4, 4, 1]
    assert row_count(tmp_path) == 18
    assert list(records.read_file(odd / "part-00002.parquet")) == [document(17)]


def test_a_folder_without_records_still_tells_its_columns(tmp_path: Path) -> None:
    with Shards({tmp_path: "comparisons"}):
        pass
    assert row_count(tmp_path) == 0
    assert schema(tmp_path / "part-00000.parquet") == records.SCHEMAS["comparisons"]


def test_files_of_an_earlier_run_are_gone_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "part-00007.parquet").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    with Shards({tmp_path: "documents"}) as writer:
        writer.add(tmp_path, document(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "part-00000.parquet"]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        with Shards({tmp_path / name: "documents"}) as writer:
            for number in range(100):
                writer.add(tmp_path / name, document(number))
    assert (tmp_path / "a/part-00000.parquet").read_bytes() == (tmp_path / "b/part-00000.parquet").read_bytes()


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    file = tmp_path / "part-00000.parquet"
    file.write_text("not Parquet")
    for read in (lambda: row_count(tmp_path), lambda: schema(file), lambda: list(records.read_file(file))):
        with pytest.raises(DataError, match=r"part-00000\.parquet: not a readable Parquet file.*dvc checkout"):
            read()


def test_objects_are_appended_by_name_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_writer, "WAITING_CHARACTERS", 20)
    (tmp_path / "old.jsonl").write_text("{}\n")
    with JsonLines(tmp_path) as lines:
        for number in range(10):
            lines.add(f"sub/{number % 2}", {"number": number, "text": "文"})
    assert not (tmp_path / "old.jsonl").exists()
    found = [json.loads(line) for line in (tmp_path / "sub/1.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found == [{"number": number, "text": "文"} for number in range(1, 10, 2)]


def test_a_report_is_sorted_and_ascii(tmp_path: Path) -> None:
    write_json(tmp_path / "new/report.json", {"b": 1, "a": "文"})
    assert (tmp_path / "new/report.json").read_text(encoding="utf-8") == '{\n  "a": "\\u6587",\n  "b": 1\n}\n'
