"""Files told apart by content, and read whatever state they are in."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from stages.common.ingest.files import raw_files
from stages.common.ingest.files import rows as raw_rows
from stages.common.ingest.files.raw_files import find, none_found, open_raw, sniff, stated_encoding
from stages.common.ingest.files.rows import Row
from stages.common.runtime.errors import DataError, ParamsError

OBJECT = b'{"text": "a"}'


def rows(path: Path) -> list[Row]:
    with open_raw(path) as file:
        return list(file.rows())


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (OBJECT + b"\n", "a.jsonl", "rows"),
        (OBJECT + b"\n", "notes.txt", "rows"),
        (b"\r\n" + OBJECT, "a.json", "rows"),
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
        (b"h\x00i\x00", "a.txt", "unknown"),
        (b"\x00\x00\x00\x01", "a.txt", "unknown"),
        (b"\x89PNG\r\n", "a.png", "unknown"),
        (b'{\n  "text": "a"\n}\n', "a.json", "objects"),
        (b'{"text":\n"a"}\n', "a.json", "objects"),
        (b"{not JSON\n", "a.json", "rows"),
        (b"a,b\n", "a.csv", "table"),
        (b"", "a.csv", "text"),
        (b"instruction,output\n", "a.txt", "table"),
        (b"instruction, output\n", "a", "table"),
        (b"text, and more prose\n", "a.txt", "text"),
        (b"question;answer\n", "a.csv", "table"),
        (b"Hi\tHello\nBye\tSee you\n", "a.txt", "pairs"),
        (b"Hi\tHello\nBye\tSee you\n", "a.tsv", "pairs"),
        (b"Hi\tHello\nno tab\n", "a.txt", "text"),
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


def test_a_row_too_large_is_cut_and_the_next_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_rows, "ROW_BYTES", 20)
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "' + b"x" * 100_000 + b'"}\n' + OBJECT + b"\n")
    first, second = rows(file)
    assert (first.fault, len(first.data)) == ("row too large", 20)
    assert second == Row(2, OBJECT)


def test_dot_files_pointers_and_readmes_are_not_data(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", ".gitignore", "demo.dvc", "README.md", ".cache/x.txt", "a/readme.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in find(tmp_path)] == ["a/c.txt", "b.txt"]


def test_git_keeps_pointers_in_any_folder_of_raw_data_and_no_raw_data(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(Path(__file__).parents[4] / ".gitignore", tmp_path)
    pointers = ["data/raw/a.txt.dvc", "data/raw/mine/a.txt.dvc", "data/raw/mine/deep/b.dvc"]
    raw = ["data/raw/a.txt", "data/raw/mine/a.txt", "data/raw/mine/deep/b/c.jsonl", "data/raw/demo/d.csv"]
    for name in (*pointers, *raw):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    seen = subprocess.run(["git", "ls-files", "-o", "--exclude-standard"], cwd=tmp_path, capture_output=True, text=True)
    assert seen.stdout.split() == [".gitignore", *sorted(pointers)]


def test_a_temporary_workspace_of_dvc_lacks_no_raw_file_in_silence(tmp_path: Path) -> None:
    there = tmp_path / ".dvc/tmp/exps/standalone/tmpa1b2/data/raw"
    (there.parents[1] / ".dvc").mkdir(parents=True)
    for folder in (tmp_path / "data/raw", there):
        (folder / "demo").mkdir(parents=True)
        (folder / "demo/a.jsonl").touch()
    raw_files.check_all_here(there)
    (tmp_path / "data/raw/own.txt").touch()
    raw_files.check_all_here(tmp_path / "data/raw")
    with pytest.raises(DataError, match=r"1 raw files are not under DVC.*: own\.txt"):
        raw_files.check_all_here(there)


def test_no_raw_files_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    assert find(tmp_path) == []
    assert str(none_found(tmp_path)).endswith(
        "no raw files here; put files in data/raw or set demo.enabled: true in params.yaml"
    )
    assert find(tmp_path / "nowhere") == []
    assert "no such folder" in str(none_found(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("encoding", "text", "found"),
    [
        ("utf-8-sig", "Grüße aus München", "utf-8-sig"),
        ("utf-16", "Grüße aus München", "utf-16"),
        ("utf-32", "Grüße aus München", "utf-32"),
        ("gb18030", "春天来了，花园里的花都开了，孩子们在草地上跑来跑去。", "gb18030"),
        ("big5", "春天來了，花園裡的花都開了，孩子們在草地上跑來跑去。", "big5"),
        ("cp1252", "Élève à l’école, où il a été très gêné par la pâte brisée, déjà préparée.", "cp1252"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_the_same_in_every_encoding(
    encoding: str, text: str, found: str, packed: bool, tmp_path: Path
) -> None:
    data = (json.dumps({"text": text}, ensure_ascii=False) + "\r\n").encode(encoding) * (1 if "utf" in encoding else 4)
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(data) if packed else data)
    with open_raw(tmp_path / "a.jsonl") as file:
        assert file.encoding == found
        read = list(file.rows())
    assert {json.loads(row.data)["text"] for row in read} == {text}
    assert [row.line for row in read] == list(range(1, len(read) + 1))


def test_a_stated_encoding_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json.dumps({"text": "Zażółć gęślą"}, ensure_ascii=False).encode("cp1250"))
    with open_raw(tmp_path / "a.jsonl", stated_encoding("pl/a.jsonl", {"pl/*": "windows-1250"})) as file:
        assert file.encoding == "cp1250"
        assert [json.loads(row.data)["text"] for row in file.rows()] == ["Zażółć gęślą"]
    assert stated_encoding("de/a.jsonl", {"pl/*": "cp1250"}) == ""
    for wrong in ("latin-99", "base64"):
        with pytest.raises(ParamsError, match=rf"ingest\.encodings: unknown encoding '{wrong}'"):
            stated_encoding("a", {"*": wrong})
