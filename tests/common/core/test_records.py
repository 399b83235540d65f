"""Records survive the trip through Parquet."""

from pathlib import Path

import pytest

from stages.common.core import records
from stages.common.core.records import Record, Shape, message
from stages.common.runtime.errors import DataError
from stages.common.text import parquet_writer
from stages.common.text.parquet_writer import write as write_records

CALL = [{"name": "f", "arguments": '{"a": 1}'}]
TURNS = [message("system", "s"), message("user", "北京？"), message("assistant", "", "t", CALL), message("tool", "")]
RECORDS: dict[Shape, Record] = {
    "documents": {"text": "One.\n\x00 二"},
    "conversations": {"messages": TURNS, "tools": "[]"},
    "comparisons": {
        "prompt": TURNS,
        "responses": ["a", ""],
        "ranks": [1, 1],
        "annotator": None,
        "categories": ["x"],
        "tools": "[]",
    },
    "prompts": {"messages": TURNS, "reference": None, "category": "c"},
    "questions": {"messages": TURNS, "reference": "r", "group": "iid", "category": None},
    "labelled": {"prompt": TURNS, "response": "a", "desirable": False, "tools": None},
}


@pytest.mark.parametrize("shape", records.SHAPES)
def test_what_is_written_is_read(shape: Shape, tmp_path: Path) -> None:
    written = [{"id": f"a:{number}", "source": "a", **RECORDS[shape]} for number in range(3)]
    write_records(written, tmp_path / "new", shape)
    read = list(records.read(tmp_path / "new"))
    assert [{name: record[name] for name in written[0]} for record in read] == written


def test_a_missing_field_is_read_as_none(tmp_path: Path) -> None:
    write_records([{"id": "a:1", "source": "a", "messages": []}], tmp_path, "prompts")
    assert next(records.read(tmp_path)) == {
        "id": "a:1",
        "source": "a",
        "messages": [],
        "reference": None,
        "category": None,
    }


def test_many_records_go_to_many_files_and_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_writer, "RECORDS_PER_FILE", 4_000)
    write_records(({"id": f"a:{number}"} for number in range(9_000)), tmp_path, "documents")
    assert len(records.files(tmp_path)) == 3
    assert [record["id"] for record in records.read(tmp_path)] == [f"a:{number}" for number in range(9_000)]


def test_no_records_still_leave_a_file_with_the_columns(tmp_path: Path) -> None:
    write_records([], tmp_path, "documents")
    assert list(records.read(tmp_path)) == []
    assert len(records.files(tmp_path)) == 1


def test_the_identity_of_a_data_set_is_that_of_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"a:{number}", "source": "a", "text": str(number)} for number in range(5_000)]
    write_records(rows, tmp_path / "one", "documents")
    monkeypatch.setattr(parquet_writer, "RECORDS_PER_FILE", 2_000)
    write_records(rows, tmp_path / "two", "documents")
    write_records(rows[::-1], tmp_path / "three", "documents")
    one, two, three = (records.sha256(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three


def test_an_empty_folder_and_a_corrupt_file_are_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Parquet files here; run `dvc repro`"):
        records.files(tmp_path)
    (tmp_path / "part-00000.parquet").write_text("not Parquet")
    with pytest.raises(DataError, match=r"part-00000\.parquet: not a readable Parquet file.*dvc checkout"):
        list(records.read(tmp_path))
