"""Parquet files, whole and damaged."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.ingest.files.raw_files import open_raw
from stages.common.ingest.files.rows import Row

ROWS: list[dict[str, Any]] = [{"instruction": f"a{number}", "output": "b"} for number in range(1000)]


def read(file: Path) -> list[Row]:
    with open_raw(file) as opened:
        assert (opened.kind, opened.encoding) == ("parquet", "")
        found = list(opened.rows())
        assert opened.position() == file.stat().st_size or found[-1].fault
        return found


def test_rows_come_with_their_values_and_numbers_over_all_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "data", row_group_size=300)
    assert read(tmp_path / "data") == [Row(number, b"", value=row) for number, row in enumerate(ROWS, 1)]


def test_nested_columns_are_lists_and_objects(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}], "tools": None, "when": datetime(2020, 1, 1)}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (found,) = read(tmp_path / "a.parquet")
    assert found.value == row
    assert '"when": "2020-01-01 00:00:00"' in found.text()


def test_a_damaged_row_group_is_one_faulty_row_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), file, row_group_size=250, compression="zstd", write_page_checksum=True)
    group = pq.read_metadata(file).row_group(1).column(0)
    data = bytearray(file.read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = bytes(group.total_compressed_size)
    file.write_bytes(data)
    found = read(file)
    faults = [row for row in found if row.fault]
    assert [(row.line, row.fault) for row in faults] == [(251, "damaged Parquet file")]
    assert faults[0].detail.startswith("rows 251 to 500: ")
    assert [row.line for row in found if not row.fault] == [*range(1, 251), *range(501, 1001)]


def test_a_file_without_its_end_is_one_faulty_row(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-100])
    (row,) = read(tmp_path / "b.parquet")
    assert (row.line, row.fault) == (1, "damaged Parquet file")


def test_text_that_is_not_utf_8_is_a_faulty_row(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"b\xffd", b"fine too"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    assert [(row.line, row.fault, row.value) for row in read(tmp_path / "a.parquet")] == [
        (1, "", {"text": "fine"}),
        (2, "not UTF-8", None),
        (3, "", {"text": "fine too"}),
    ]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with open_raw(tmp_path / "a.parquet") as opened:
        assert list(opened.rows()) == []
