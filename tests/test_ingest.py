"""Whatever lies in the raw folder, every row ends as part of a record or in quarantine with its
line and reason.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import params, records
from stages.common.core.records import SHAPES, message
from stages.common.ingest.counts import summary
from stages.common.runtime.errors import DataError, ParamsError
from stages.ingest import Params, ingest
from tests.support.real_data import REAL, needs_real_data

USER = {"role": "user", "content": "1+1?"}
ROWS: list[dict[str, Any]] = [
    {"text": "One."},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}], "tools": "[]"},
    {"conversations": [{"from": "human", "value": "Hi"}], "chosen": "a", "rejected": "b"},
    {"messages": [USER, {"role": "assistant", "content": "2"}]},
    {"messages": [USER], "category": "sums"},
    {"messages": [USER], "reference": "2", "group": "iid"},
    {"prompt": "Hi", "responses": ["a", "b"], "ranks": [1, 2]},
]
SHAPES_OF_ROWS = ["documents", "conversations", "comparisons", "conversations", "prompts", "questions", "comparisons"]


def run(folder: Path, **settings: Any) -> dict[str, Any]:
    """Ingest `folder`/raw and return the report as it is written."""
    chosen = Params.model_validate({"document_characters": 100} | settings)
    counts = ingest(folder / "raw", folder / "out", folder / "quarantine", chosen)
    report: dict[str, Any] = json.loads(json.dumps(summary(counts)))
    return report


def kept(folder: Path) -> dict[str, list[records.Record]]:
    return {shape: list(records.read(folder / "out" / shape)) for shape in SHAPES}


def refused(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "quarantine").rglob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def lay(folder: Path, **files: bytes) -> Path:
    (folder / "raw").mkdir()
    for name, data in files.items():
        (folder / "raw" / name.replace("__", ".")).write_bytes(data)
    return folder


def test_a_file_of_every_format_becomes_records_whose_ids_name_file_and_line(tmp_path: Path) -> None:
    lines = [json.dumps(row).encode() for row in ROWS]
    lay(tmp_path, mixed__jsonl=b"\xef\xbb\xbf" + b"\r\n".join([*lines[:3], b"", *lines[3:]]))
    report = run(tmp_path)
    found = kept(tmp_path)
    where = {record["id"]: shape for shape in SHAPES for record in found[shape]}
    numbers = [1, 2, 3, 5, 6, 7, 8]
    expected = {f"mixed.jsonl:{number}": shape for number, shape in zip(numbers, SHAPES_OF_ROWS, strict=True)}
    assert where == expected
    assert report["files"]["mixed.jsonl"]["formats"] == {
        "comparison": 1,
        "messages": 1,
        "prompt": 1,
        "question": 1,
        "sharegpt": 1,
        "sharegpt comparison": 1,
        "text": 1,
    }
    assert report["files"]["mixed.jsonl"]["records"] == Counter(SHAPES_OF_ROWS)
    assert found["comparisons"][0]["prompt"] == [message("user", "Hi")]


def test_a_malformed_row_goes_to_quarantine_as_it_is(tmp_path: Path) -> None:
    bad = [b"{cut", b'{"text": "\xff"}', b'{"text": "\\ud800"}', b"[1]", b'{"text": 1}', b'{"q": 1}', b"[" * 100_000]
    lay(tmp_path, a__jsonl=b"\n".join([json.dumps(ROWS[0]).encode(), *bad, json.dumps(ROWS[1]).encode()]))
    report = run(tmp_path)["files"]["a.jsonl"]
    reasons = [
        "not valid JSON",
        "not UTF-8",
        "not UTF-8",
        "not an object",
        "bad text",
        "unknown format",
        "nested too deep",
    ]
    assert (report["rows"], report["kept"], report["quarantined"]) == (9, 2, Counter(reasons))
    found = refused(tmp_path)
    assert [(row["file"], row["line"], row["reason"]) for row in found] == [
        ("a.jsonl", line, reason) for line, reason in enumerate(reasons, 2)
    ]
    assert [row["raw"] for row in found[:2]] == ["{cut", '{"text": "\\xff"}']
    assert found[5]["detail"].startswith("keys: q; nearest: question and answer, lacks ")


def test_the_rows_of_plain_text_are_its_paragraphs(tmp_path: Path) -> None:
    lay(tmp_path, book__txt=b"Title\n\nA sentence.\n\nB\xff.\n\n" + b"Long sentence number two. " * 5 + b"\n")
    report = run(tmp_path)
    assert report["files"]["book.txt"] == {
        "kind": "text",
        "encoding": "utf-8",
        "rows": 4,
        "kept": 3,
        "formats": {"plain text": 3},
        "records": {"documents": 2},
        "quarantined": {"not UTF-8": 1},
        "fields_not_used": {},
        "warnings": [],
    }
    documents = kept(tmp_path)["documents"]
    assert [(row["id"], row["source"]) for row in documents] == [
        ("book.txt:1", "book.txt"),
        ("book.txt:7", "book.txt"),
    ]
    assert documents[0]["text"] == "Title\n\nA sentence."
    assert [(row["line"], row["raw"]) for row in refused(tmp_path)] == [(5, "B\\xff.")]


def test_a_file_of_an_unknown_kind_is_one_row_in_quarantine_and_an_empty_one_none(tmp_path: Path) -> None:
    lay(tmp_path, a__png=b"\x89PNG\x00\x00", b__txt=b"", c__csv=b"")
    report = run(tmp_path)["files"]
    assert [(name, report[name]["rows"], report[name]["quarantined"]) for name in report] == [
        ("a.png", 1, {"unknown format": 1}),
        ("b.txt", 0, {}),
        ("c.csv", 0, {}),
    ]


def test_totals_are_the_sums_of_the_files(tmp_path: Path) -> None:
    lay(tmp_path, a__jsonl=b'{"text": "a"}\n{"te', b__json=b'[{"text": "b"}, {"text": 1}]', c__txt=b"One.\n\nTwo.")
    report = run(tmp_path)
    files = report["files"].values()
    for name in ("rows", "kept"):
        assert report["total"][name] == sum(file[name] for file in files)
    for name in ("formats", "records", "quarantined"):
        assert report["total"][name] == sum((Counter(file[name]) for file in files), Counter())


def test_two_runs_write_the_same_bytes_and_leave_nothing_of_a_run_before(tmp_path: Path) -> None:
    lay(tmp_path, a__jsonl=b'{"text": "a"}\n{"te', b__jsonl=b'{"x": 1}')
    run(tmp_path)
    (tmp_path / "raw/b.jsonl").unlink()
    run(tmp_path)
    (tmp_path / "again").mkdir()
    (tmp_path / "again/raw").symlink_to(tmp_path / "raw")
    run(tmp_path / "again")

    def written(folder: Path) -> dict[str, bytes]:
        files = [file for part in ("out", "quarantine") for file in (folder / part).rglob("*") if file.is_file()]
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}

    assert written(tmp_path) == written(tmp_path / "again")


def test_the_section_of_params_is_read_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "ingest:\n  encodings:\n    old/*.txt: big5\n"
        "  datasets:\n    - name: someone/something\n      revision: 0a1b2c3\n      splits: train\n"
    )
    with pytest.raises(ParamsError, match=r"params\.yaml:\d+: unknown key 'ingest\.datasets\.0\.splits'"):
        params.load(Params, "ingest", tmp_path / "params.yaml")


def test_no_raw_data_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raw: no such folder; put files in data/raw or set demo\.enabled: true"):
        run(tmp_path)


@needs_real_data
@pytest.mark.parametrize(
    ("file", "rows", "shape", "quarantined"),
    [
        ("medicalgpt/medical_sft_1K_format.jsonl", 1000, "conversations", {}),
        ("medicalgpt/sharegpt_zh_1K_format.jsonl.gz", 1000, "conversations", {}),
        ("medicalgpt/glaive_toolcall_zh_demo.jsonl", 300, "conversations", {}),
        ("medicalgpt/dpo_zh_500.jsonl", 500, "comparisons", {}),
        ("medicalgpt/toolcall_dpo_zh_demo.jsonl", 11, "comparisons", {}),
        ("hh_rlhf/harmless_base_test.jsonl.gz", 2312, "comparisons", {"bad chosen": 5}),
    ],
)
def test_every_row_of_a_real_file_is_kept_or_in_quarantine(
    file: str, rows: int, shape: str, quarantined: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / Path(file).name).symlink_to(REAL / file)
    report = run(tmp_path)["total"]
    assert (report["rows"], report["quarantined"]) == (rows, quarantined)
    assert len(kept(tmp_path)[shape]) == report["kept"] == rows - sum(quarantined.values())
    assert len(refused(tmp_path)) == sum(quarantined.values())


@needs_real_data
@pytest.mark.parametrize("file", ["medicalgpt/en_article_tail500.txt", "medicalgpt/fever.txt", "wikitext2/valid.txt"])
def test_every_line_of_a_real_text_is_in_one_document(file: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/book.txt").symlink_to(REAL / file)
    total = run(tmp_path, document_characters=4000)["total"]
    texts = [record["text"] for record in records.read(tmp_path / "out/documents")]
    lines = [line for line in (REAL / file).read_text(encoding="utf-8").split("\n") if line.strip()]
    assert [line for text in texts for line in text.split("\n") if line] == lines
    assert total["rows"] == total["kept"] and total["records"]["documents"] == len(texts)
    assert len(texts) > 5 and sorted(map(len, texts))[len(texts) // 2] > 2000
