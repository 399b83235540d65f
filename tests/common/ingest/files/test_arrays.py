"""JSON values over several lines: none lost, none held longer than it takes."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.ingest.files import arrays
from stages.common.ingest.files.arrays import elements
from stages.common.ingest.files.raw_files import open_raw
from stages.common.ingest.files.rows import Row

OBJECT = b'{"text": "a"}'


def read(data: bytes, in_array: bool = True) -> list[Row]:
    return list(elements(io.BufferedReader(io.BytesIO(data)), in_array))


def test_an_array_gives_its_elements_with_their_lines_past_a_malformed_one() -> None:
    data = b'[\n  {"text": "a"},\n  {"text": b},\n  {"text":\n "c"}, 5\n]\n'
    assert read(data) == [Row(2, OBJECT), Row(3, b'{"text": b}'), Row(4, b'{"text":\n "c"}'), Row(5, b"5")]


def test_values_one_after_another_are_read_alike() -> None:
    data = b'{"text":\n "a"}\n{"text": b}\n\n{"text": "c"}'
    expected = [Row(1, b'{"text":\n "a"}'), Row(3, b'{"text": b}'), Row(5, b'{"text": "c"}')]
    assert read(data, in_array=False) == expected


def test_an_array_cut_short_loses_nothing() -> None:
    assert read(b'[{"text": "a"}, {"text": "b\xff') == [Row(1, OBJECT), Row(1, b'{"text": "b\xff')]
    assert read(b'[{"text": "a"}] and more') == [Row(1, OBJECT), Row(1, b"] and more")]
    assert read(b"[") == []


def test_a_damaged_archive_says_so_after_its_whole_rows(tmp_path: Path) -> None:
    rows = [{"text": str(number**9)} for number in range(9000)]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode())[:-3000])
    with open_raw(tmp_path / "a.json.gz") as file:
        found = list(file.rows())
    assert found[-1].fault == "damaged archive"
    assert [json.loads(row.data) for row in found[:-1]] == rows[: len(found) - 1]
    assert len(found) > 1000


@pytest.mark.parametrize("separator", [", ", ",\n"])
def test_a_long_array_is_read_as_a_stream(separator: str) -> None:
    row = json.dumps({"text": "语" * 300, "n": 123456789}, ensure_ascii=False)
    data = ("[" + separator.join([row] * 20_000) + "]").encode()
    tracemalloc.start()
    found = 0
    for one in elements(io.BufferedReader(io.BytesIO(data)), in_array=True):
        found += one.data == row.encode()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == 20_000
    assert peak < len(data) / 10  # 20 MB are read with some hundred KB


def test_an_element_too_large_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "ROW_BYTES", 200_000)
    data = b'[{"text": "' + b"x" * 500_000 + b'"}, {"text": "a"}]'
    found = read(data)
    assert found[0].fault == "row too large"
    assert found[-1] == Row(1, OBJECT)
    assert b"".join(row.data for row in found) == data[1:-1].replace(b"}, {", b"}{")


@given(
    st.lists(st.recursive(st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))),
    st.integers(1, 40),
)
def test_any_values_come_back_whatever_is_read_at_once(values: list[object], size: int) -> None:
    whole, arrays.CHUNK_BYTES = arrays.CHUNK_BYTES, size
    try:
        found = read(json.dumps(values, indent=1).encode())
    finally:
        arrays.CHUNK_BYTES = whole
    assert [json.loads(row.data) for row in found] == values
