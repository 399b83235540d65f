"""Files told apart by content, and read whatever state they are in."""

import gzip
import json
from pathlib import Path

import pytest

from stages.common import raw_files
from stages.common.errors import DataError
from stages.common.raw_files import Row, find, open_raw, sniff

OBJECT = b'{"text": "a"}'


def rows(path: Path) -> list[Row]:
    with open_raw(path) as file:
        return list(file.rows())


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (OBJECT + b"\n", "a.jsonl", "rows"),
        (OBJECT + b"\n", "notes.txt", "rows"),
        (b"\xef\xbb\xbf\r\n" + OBJECT, "a.json", "rows"),
        (b'{"text": "cut off before the first line ends', "a.txt", "rows"),
        (b"{not JSON\nbut prose in braces}\n", "a.txt", "text"),
        (b"{not JSON\n", "a.jsonl", "rows"),
        (b"rubbish\n", "a.jsonl", "rows"),
        (b"[\n  {", "a.json", "array"),
        (b"[]", "a.jsonl", "array"),
        (b'["a"]', "a.json", "array"),
        (b"[Round 1]\nhello\n", "a.txt", "text"),
        (b"# Title\n", "a.md", "text"),
        (b"", "a.txt", "text"),
        (b"\xff\xfeh\x00i\x00", "a.txt", "unknown"),
        (b"\x00\x00\x00\x01", "a.txt", "unknown"),
        (b"PAR1", "a.parquet", "unknown"),
        (b"a,b\n", "a.csv", "unknown"),
    ],
)
def test_content_decides_and_the_name_only_when_it_does_not(head: bytes, name: str, kind: str) -> None:
    assert sniff(head, name) == kind


def test_byte_order_mark_line_ends_and_blank_lines_leave_the_rows_and_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + OBJECT + b"\r\n\r\n  \n" + OBJECT)
    assert rows(file) == [Row(1, OBJECT), Row(4, OBJECT)]


def test_an_archive_is_known_by_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(gzip.compress(b"\xef\xbb\xbf" + OBJECT + b"\n"))
    assert rows(file) == [Row(1, OBJECT)]


def test_a_damaged_archive_gives_its_whole_rows_and_says_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    lines = [json.dumps({"text": str(number**7)}).encode() for number in range(9000)]
    file.write_bytes(gzip.compress(b"\n".join(lines))[:-3000])
    found = rows(file)
    assert found[-1].fault == "damaged archive"
    assert 0 < len(found) - 1 < len(lines)
    assert [row.data for row in found[:-1]] == lines[: len(found) - 1]


def test_an_archive_damaged_at_its_start_is_one_faulty_row(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.txt.gz"):
        (tmp_path / name).write_bytes(b"\x1f\x8b" + b"x" * 50)
        assert rows(tmp_path / name) == [Row(1, b"", "damaged archive")]


def test_an_array_gives_its_elements_with_their_lines_past_a_malformed_one(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('[\n  {"text": "a"},\n  {"text": b},\n  {"text":\n "c"}, 5\n]\n')
    assert rows(file) == [
        Row(2, OBJECT),
        Row(3, b'{"text": b}'),
        Row(4, b'{"text":\n "c"}'),
        Row(5, b"5"),
    ]


def test_an_array_cut_short_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'[{"text": "a"}, {"text": "b\xff')
    assert rows(file) == [Row(1, OBJECT), Row(1, b'{"text": "b\xff')]


def test_a_row_too_large_is_cut_and_the_next_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "ROW_BYTES", 20)
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "' + b"x" * 100_000 + b'"}\n' + OBJECT + b"\n")
    first, second = rows(file)
    assert (first.fault, len(first.data)) == ("row too large", 20)
    assert second == Row(2, OBJECT)


def test_an_array_too_large_is_an_error_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "ROW_BYTES", 20)
    file = tmp_path / "a.json"
    file.write_bytes(b"[" + b", ".join([OBJECT] * 3) + b"]")
    with pytest.raises(DataError, match=r"a\.json: a JSON array over .* one row a line"):
        rows(file)


def test_dot_files_pointers_and_readmes_are_not_data(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", ".gitignore", "demo.dvc", "README.md", ".cache/x.txt", "a/readme.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in find(tmp_path)] == ["a/c.txt", "b.txt"]


def test_no_raw_files_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(DataError, match=r"no raw files here; put files in data/raw or set demo\.enabled: true"):
        find(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find(tmp_path / "nowhere")
