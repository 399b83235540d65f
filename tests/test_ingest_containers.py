"""The same rows in other files: encodings, compression, Parquet, data sets, dialogues; odd values
in any of them.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.common.core.records import message
from tests.test_ingest import ROWS, USER, kept, lay, refused, run

LONG = "春天来了花园里的花都开了孩子们" * 3_700  # 55,500 characters
PAIR = {"instruction": "Say it.", "input": "", "output": LONG}
JSON_LINES = (json.dumps(PAIR, ensure_ascii=False) + "\r\n\r\n" + json.dumps(ROWS[2], ensure_ascii=False)).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    columns = {key for row in rows for key in row}
    pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in columns}), sink)
    return sink.getvalue().to_pybytes()


CONTAINERS = {
    "a.jsonl": JSON_LINES,
    "a.jsonl.gz": gzip.compress(JSON_LINES),
    "a.jsonl.zst": pa.compress(JSON_LINES, "zstd", asbytes=True),
    "a.json": json.dumps([PAIR, ROWS[2]], indent=1, ensure_ascii=False).encode(),
    "b.json": json.dumps(PAIR, indent=1).encode() + b"\n" + json.dumps(ROWS[2], indent=1).encode(),
    "bom.jsonl": b"\xef\xbb\xbf" + JSON_LINES,
    "wide.jsonl": JSON_LINES.decode().encode("utf-16"),
    "gb.jsonl": JSON_LINES.decode().encode("gb18030"),
    "a.parquet": parquet([PAIR, ROWS[2]]),
    "a.csv": (
        "instruction,input,output,conversations,chosen,rejected\r\n"
        f"Say it.,,{LONG},,,\r\n"
        ',,,"[{""from"": ""human"", ""value"": ""Hi""}]",a,b\r\n'
    ).encode(),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_same_rows_give_the_same_records_in_every_container(name: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / name).write_bytes(CONTAINERS[name])
    report = run(tmp_path)["files"][name]
    assert (report["rows"], report["kept"], report["quarantined"]) == (2, 2, {})
    assert report["formats"] == {"alpaca": 1, "sharegpt comparison": 1}
    (conversation,), (comparison,) = kept(tmp_path)["conversations"], kept(tmp_path)["comparisons"]
    assert conversation["messages"] == [message("user", "Say it."), message("assistant", LONG)]
    assert (comparison["prompt"], comparison["responses"]) == ([message("user", "Hi")], ["a", "b"])


def test_the_report_names_the_encoding_and_a_row_it_does_not_fit_is_refused(tmp_path: Path) -> None:
    text = "春天来了，花园里的花都开了，孩子们在草地上跑来跑去。"
    good = json.dumps({"text": text}, ensure_ascii=False).encode("gb18030")
    prose = "春天来了，花园里的花都开了。\n\n孩子们在草地上跑来跑去。\n\n".encode("gb18030")
    lay(tmp_path, a__jsonl=b"\n".join([good] * 30 + [b'{"text": "\xff"}']), b__txt=prose * 9 + b"\xff\xff\n")
    (tmp_path / "raw/c.jsonl").write_bytes(json.dumps({"text": "Zażółć"}, ensure_ascii=False).encode("cp1250"))
    files = run(tmp_path, encodings={"c.*": "cp1250"})["files"]
    assert {name: (file["encoding"], file["kept"], file["quarantined"]) for name, file in files.items()} == {
        "a.jsonl": ("gb18030", 30, {"not gb18030": 1}),
        "b.txt": ("gb18030", 18, {"not gb18030": 1}),
        "c.jsonl": ("cp1250", 1, {}),
    }
    assert [row["line"] for row in refused(tmp_path)] == [31, 37]
    assert {record["text"] for record in kept(tmp_path)["documents"]} >= {"Zażółć"}


NUMBER = 12345678901234567890123
ODD = [
    ('{"text": "a", "score": NaN, "n": -Infinity}', ""),
    ('{"text": "a", "text": "b"}', ""),
    (f'{{"text": "a", "n": {NUMBER}}}', ""),
    (f'{{"text": "a", "n": {"9" * 5000}}}', "not valid JSON"),
    ('{"text": "a", "n": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deep"),
    ('{"text": "a\\u0000b"}', ""),
    ('{"text": "\\ud83d\\ude00"}', ""),
    ('{"text": "\\ud83d"}', "not UTF-8"),
    ('{"\\ud83d": 1}', "unknown format"),
    ('{"messages": [{"role": "\\ud83d", "content": ""}]}', "bad role"),
    ('{"conversations": [{"from": "function_call", "value": "{\\"name\\": \\"\\\\ud83d\\"}"}]}', "not UTF-8"),
    ('{"conversations": [{"from": "human", "value": "a"}], "tools": "[\\"\\\\udc00\\"]"}', "not UTF-8"),
    ('{"text": null, "messages": null}', "unknown format"),
    ("null", "not an object"),
    ('"text"', "not an object"),
    ("\x00", "not valid JSON"),
]


def test_odd_values_are_kept_or_refused_with_their_line(tmp_path: Path) -> None:
    lay(tmp_path, a__jsonl="\n".join(row for row, _ in ODD).encode())
    run(tmp_path)
    expected = [(line, reason) for line, (_, reason) in enumerate(ODD, 1) if reason]
    assert [(row["line"], row["reason"]) for row in refused(tmp_path)] == expected
    assert [record["text"] for record in kept(tmp_path)["documents"]] == ["a", "b", "a", "a\0b", "😀"]


def test_a_large_number_in_a_tool_call_keeps_its_digits(tmp_path: Path) -> None:
    call = {"function": {"name": "add", "arguments": {"n": NUMBER}}}
    row = {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}], "tools": [{"n": NUMBER}]}
    lay(tmp_path, a__jsonl=json.dumps(row).encode())
    run(tmp_path)
    (record,) = kept(tmp_path)["conversations"]
    assert record["messages"][1]["tool_calls"] == [{"name": "add", "arguments": f'{{"n": {NUMBER}}}'}]
    assert record["tools"] == f'[{{"n": {NUMBER}}}]'


def utterance(name: str, conversation: str, after: str | None, speaker: str) -> bytes:
    row = {"id": name, "conversation_id": conversation, "reply-to": after, "speaker": speaker, "text": f"Text {name}."}
    return json.dumps(row).encode()


def test_lines_of_a_dialogue_become_one_record_and_a_line_without_an_answer_is_refused(tmp_path: Path) -> None:
    lines = [
        utterance("a3", "a1", "a2", "anna"),
        utterance("a2", "a1", "a1", "ben"),
        utterance("a1", "a1", None, "anna"),
        utterance("b1", "b1", None, "ben"),
        b'{"text": "One."}',
        utterance("c1", "c1", None, "ben"),
        utterance("c2", "c1", "c9", "ben"),
        utterance("d1", "d1", None, "ben").replace(b'"Text d1."', b"null"),
    ]
    lay(tmp_path, a__jsonl=b"\n".join(lines))
    report = run(tmp_path)["files"]["a.jsonl"]
    assert (report["rows"], report["kept"]) == (8, 3)
    assert report["formats"] == {"utterances": 2, "text": 1}
    assert report["quarantined"] == {"no answer": 2, "bad dialogue": 2, "bad text": 1}
    (record,) = kept(tmp_path)["conversations"]
    assert (record["id"], [one["content"] for one in record["messages"]]) == ("a.jsonl:2", ["Text a1.", "Text a2."])
    assert sorted(row["line"] for row in refused(tmp_path)) == [1, 4, 6, 7, 8]


def test_a_data_set_is_read_through_the_same_parsers(tmp_path: Path) -> None:
    (tmp_path / "faqs").mkdir()
    rows = [{"question": "1+1?", "answer": "2", "text": None}, {"question": None, "answer": None, "text": "One."}]
    (tmp_path / "faqs/train.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0] | {"answer": None}])))
    report = run(tmp_path, datasets=[{"name": str(tmp_path / "faqs")}])["files"]
    assert report == {
        "hf/faqs": {
            "kind": "dataset",
            "encoding": "",
            "rows": 3,
            "kept": 2,
            "formats": {"question and answer": 1, "text": 1},
            "records": {"conversations": 1, "documents": 1},
            "quarantined": {"bad answer": 1},
            "fields_not_used": {},
            "warnings": [],
        }
    }
    assert kept(tmp_path)["conversations"][0]["id"] == "hf/faqs:1"
    assert [(row["file"], row["line"]) for row in refused(tmp_path)] == [("hf/faqs", 3)]
    assert json.loads(refused(tmp_path)[0]["raw"]) == rows[0] | {"answer": None}
