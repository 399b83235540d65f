"""Whole files as people have them: labels, unknown columns, rows inside of rows, the corpora of two
files and of folders, encodings without a mark.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import records
from stages.common.core.records import message
from stages.common.ingest import counts
from stages.common.ingest.files.raw_files import SAMPLE_BYTES, open_raw
from tests.test_ingest import kept, lay, refused, run

PAIR = {"instruction": "Say it.", "output": "It."}
PAIRS = [PAIR | {"output": f"It, {number}."} for number in range(3)]


def lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def test_an_answer_that_somebody_did_not_like_is_never_learned(tmp_path: Path) -> None:
    liked = {"prompt": "Name a fish.", "completion": "A trout.", "label": True}
    lay(tmp_path, a__jsonl=lines(liked, liked | {"completion": "A stone.", "label": False}))
    report = run(tmp_path)["files"]["a.jsonl"]
    assert (report["rows"], report["kept"]) == (2, 2)
    assert report["records"] == {"conversations": 1, "labelled": 2}
    (conversation,) = kept(tmp_path)["conversations"]
    assert conversation["messages"] == [message("user", "Name a fish."), message("assistant", "A trout.")]
    found = list(records.read(tmp_path / "out/labelled"))
    assert [(one["id"], one["response"], one["desirable"]) for one in found] == [
        ("a.jsonl:1", "A trout.", True),
        ("a.jsonl:2", "A stone.", False),
    ]
    assert found[1]["prompt"] == [message("user", "Name a fish.")]


def test_keys_that_went_nowhere_are_counted_and_named_above_a_share(tmp_path: Path) -> None:
    rows = [PAIR | {"id": number, "mood": "glad"} for number in range(5)]
    lay(tmp_path, a__jsonl=lines(*rows, *[PAIR] * 90, PAIR | {"seldom": 1}))
    report = run(tmp_path)
    file = report["files"]["a.jsonl"]
    assert file["fields_not_used"] == report["total"]["fields_not_used"] == {"id": 5, "mood": 5, "seldom": 1}
    assert file["warnings"] == ["a.jsonl: fields not used, of 96 rows: mood 5"]


def test_a_file_that_is_largely_unknown_stands_first_with_the_nearest_layout(tmp_path: Path) -> None:
    unknown = {"history": "Hi", "human_ref_A": "a", "human_ref_B": "b"}
    lay(tmp_path, a__jsonl=lines(*PAIRS, unknown), b__jsonl=lines(*PAIRS, *PAIRS, unknown))
    report = run(tmp_path)
    first = "a.jsonl: 1 of 4 rows are of an unknown format; nearest known layout: shp, lacks labels"
    assert report["files"]["a.jsonl"]["warnings"] == [first]
    assert counts.figure(report) == f"{first}; 9 records of 11 rows, 2 in quarantine"
    assert report["files"]["b.jsonl"]["warnings"] == []


INSIDE = {
    "wrapped.json": json.dumps({"version": "1", "data": PAIRS, "end": True}).encode(),
    "pretty.json": json.dumps({"version": 1.0, "rows": PAIRS}, indent=1).encode(),
    "indexed.json": json.dumps({str(number): row for number, row in enumerate(PAIRS)}).encode(),
    "columns.json": json.dumps({key: [row[key] for row in PAIRS] for key in PAIR}).encode(),
    "commas.jsonl": b"\n".join(json.dumps(row).encode() + b"," for row in PAIRS),
    "one_line.jsonl": b" ".join(json.dumps(row).encode() for row in PAIRS),
    "array.json": json.dumps(PAIRS).encode(),
    "talks.json": json.dumps(
        [
            [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
            for row in PAIRS
        ]
    ).encode(),
}


@pytest.mark.parametrize("name", INSIDE)
def test_rows_inside_of_rows_are_read_and_each_has_a_name_of_its_own(name: str, tmp_path: Path) -> None:
    lay(tmp_path)
    (tmp_path / "raw" / name).write_bytes(INSIDE[name])
    report = run(tmp_path)["files"][name]
    assert (report["rows"], report["kept"], report["quarantined"]) == (3, 3, {})
    found = kept(tmp_path)["conversations"]
    assert [one["messages"][1]["content"] for one in found] == [row["output"] for row in PAIRS]
    assert len({one["id"] for one in found}) == 3
    if name in ("wrapped.json", "array.json"):
        assert [one["id"] for one in found] == [f"{name}:1", f"{name}:1.2", f"{name}:1.3"]


def test_a_list_under_a_column_is_no_wrapper(tmp_path: Path) -> None:
    row = {"id": "x", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}
    lay(tmp_path, a__json=json.dumps(row).encode(), b__json=lines({"data": PAIRS}, {"data": PAIRS}))
    report = run(tmp_path)["files"]
    assert report["a.json"]["formats"] == {"sharegpt": 1}
    assert report["b.json"]["quarantined"] == {"unknown format": 2}


LINES = {"L1": ("u0", "Is it far?"), "L2": ("u1", "No."), "L3": ("u0", "Then we walk."), "L4": ("u2", "Alone.")}
MOVIE_LINES = "\n".join(
    f"{name} +++$+++ {who} +++$+++ m0 +++$+++ X +++$+++ {text}" for name, (who, text) in LINES.items()
)
TALKS = "u0 +++$+++ u1 +++$+++ m0 +++$+++ ['L1', 'L2', 'L3']\nu0 +++$+++ u1 +++$+++ m0 +++$+++ ['L9', 'L2']\n"


def test_cornell_joins_lines_by_its_file_of_conversations(tmp_path: Path) -> None:
    lay(tmp_path, movie_lines__txt=MOVIE_LINES.encode(), movie_conversations__txt=TALKS.encode())
    files = run(tmp_path)["files"]
    (record,) = kept(tmp_path)["conversations"]
    assert record["id"] == "movie_conversations.txt:1"
    assert record["messages"] == [message("user", "Is it far?"), message("assistant", "No.")]
    talks = files["movie_conversations.txt"]
    assert (talks["rows"], talks["kept"], talks["quarantined"]) == (2, 1, {"bad dialogue": 1})
    assert talks["fields_not_used"] == {"lines after the last answer": 1}
    spoken = files["movie_lines.txt"]
    assert (spoken["rows"], spoken["kept"], spoken["records"], spoken["quarantined"]) == (4, 3, {}, {"no answer": 1})
    assert [row["detail"] for row in refused(tmp_path)] == [
        "no line L9 in movie_lines.txt",
        "in no conversation of movie_conversations.txt",
    ]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("movie_lines.txt", MOVIE_LINES, "no answer"),
        ("movie_conversations.txt", TALKS, "bad dialogue"),
        ("movie_titles.txt", "m0 +++$+++ a title +++$+++ 1999", "unknown format"),
    ],
)
def test_a_file_of_cornell_alone_becomes_no_document(name: str, text: str, reason: str, tmp_path: Path) -> None:
    lay(tmp_path)
    (tmp_path / "raw" / name).write_text(text)
    report = run(tmp_path)["total"]
    assert (report["kept"], list(report["quarantined"])) == (0, [reason])


def test_a_folder_of_save_to_disk_is_read(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa

    lay(tmp_path)
    table = datasets.Dataset.from_list(PAIRS * 300)
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(str(tmp_path / "raw/set"))
    arrow = pa.table({"text": ["One."]})
    with pa.ipc.new_file(str(tmp_path / "raw/file.arrow"), arrow.schema) as file:
        file.write_table(arrow)
    (tmp_path / "raw/cut.arrow").write_bytes(next((tmp_path / "raw/set/train").glob("*.arrow")).read_bytes()[:2000])
    files = run(tmp_path)["files"]
    assert {name: (one["kind"], one["kept"], one["quarantined"]) for name, one in files.items()} == {
        "cut.arrow": ("arrow", 0, {"damaged Arrow file": 1}),
        "file.arrow": ("arrow", 1, {}),
        "set/test/data-00000-of-00001.arrow": ("arrow", 1, {}),
        "set/train/data-00000-of-00001.arrow": ("arrow", 900, {}),
    }
    assert kept(tmp_path)["conversations"][-1]["id"] == "set/train/data-00000-of-00001.arrow:900"


def test_the_first_line_of_a_table_without_a_head_is_a_row_too(tmp_path: Path) -> None:
    lay(tmp_path, a__csv=b"What is a quay?,A landing place.\nWhat is a mole?,A breakwater.\n")
    lay_too = tmp_path / "raw/b.csv"
    lay_too.write_bytes(b"Title,Question,Answer\nx,What is a quay?,A landing place.\n")
    files = run(tmp_path)["files"]
    assert (files["a.csv"]["rows"], files["a.csv"]["quarantined"]) == (2, {"unknown format": 2})
    assert [row["line"] for row in refused(tmp_path)] == [1, 2]
    assert (files["b.csv"]["kept"], files["b.csv"]["fields_not_used"]) == (1, {"Title": 1})


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_longer_than_the_sample_is_read_wherever_its_characters_fall(encoding: str, tmp_path: Path) -> None:
    rows = [
        {"instruction": f"第{number}题：内科是什么？", "output": "内科是医学的一个分支。" * 40} for number in range(600)
    ]
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    for shift in range(8):
        file = tmp_path / "a.jsonl"
        file.write_bytes((" " * shift + data).encode(encoding))
        assert file.stat().st_size > SAMPLE_BYTES
        with open_raw(file) as opened:
            assert opened.encoding == encoding
            assert [json.loads(row.data) for row in opened.rows()] == rows


def test_bytes_that_are_text_in_another_encoding_name_the_setting(tmp_path: Path) -> None:
    lay(tmp_path, a__csv="question,answer\n几点,三点\n".encode("gb18030"))
    run(tmp_path)
    assert refused(tmp_path)[0]["detail"].endswith(
        "it is text in gb18030: if that is right, name it in ingest.encodings"
    )
    (tmp_path / "again").mkdir()
    lay(tmp_path / "again", a__csv=(tmp_path / "raw/a.csv").read_bytes())
    assert run(tmp_path / "again", encodings={"*.csv": "gb18030"})["total"]["kept"] == 1
