"""Rows of every format with odd values, damaged bytes and other containers around them, as
hypothesis draws them.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[1] / "common/ingest/layouts/golden.jsonl"
TURNS = [{"from": "human", "value": "北京天气？"}, {"from": "function_call", "value": '{"name": "w", "arguments": {}}'}]
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
MESSAGES = [
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": [{"type": "text", "text": "2"}], "thought": "Easy."},
]
MOSS = {
    "Human": "<|Human|>: Hi<eoh>\n",
    "Inner Thoughts": "None",
    "Commands": 'Search("a")',
    "Tool Responses": "b",
    "MOSS": "c",
}
SAMPLES: list[dict[str, Any]] = [
    {"text": "One."},
    {"text": "\n\nHuman: Hi\n\nAssistant: Hello."},
    {"instruction": "Translate.", "input": "Hund", "output": "dog", "history": [["a", "b"]], "system": "Be brief."},
    {"question": "1+1?", "answer": "2"},
    {"question": "1+1?", "answer": "2", "group": "iid", "category": "sums"},
    {
        "prompt": "[Round 1]\n\n问：Hi\n\n答：Hello.\n\n[Round 2]\n\n问：Bye\n\n答：",
        "response": "See you.",
        "history": [],
    },
    {"prompt": "Hi", "reference": "Hello.", "category": "x"},
    {"conversations": [*TURNS, {"from": "observation", "value": "晴"}], "tools": '[{"name": "w"}]', "system": "a"},
    {"conversations": TURNS[:1], "chosen": "a", "rejected": {"from": "gpt", "value": "b"}},
    {"messages": MESSAGES, "tools": [{"name": "add"}]},
    {"messages": MESSAGES[:1], "reference": "2", "category": "sums"},
    {"messages": MESSAGES[:1], "reference": "2", "group": "iid", "category": "sums"},
    {"meta_instruction": "You are MOSS.", "num_turns": 1, "chat": {"turn_1": MOSS}},
    {"prefix": "MOSS.", "plain_text": "[Human]: Hi<eoh> [MOSS]: Hello.<eoa>"},
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."},
    {"prompt": "Hi", "chosen": [*MESSAGES[:1], MESSAGES[3]], "rejected": [*MESSAGES[:1], MESSAGES[3]]},
    {"prompt": MESSAGES[:1], "responses": ["a", "b", "c"], "ranks": [1, 2, 2], "annotator": "x", "categories": ["y"]},
    {"prompt": "Hi", "responses": ["a", "b"], "scores": [0.5, 1]},
    {"dialog": ["Hi", "Hello.", "Bye"]},
    {"id": "a", "conversation_id": "a", "speaker": "x", "reply-to": None, "text": "Hi"},
    {"id": "b", "conversation_id": "a", "speaker": "y", "reply-to": "a", "text": "Hello."},
    *(
        row
        for line in GOLDEN.read_text(encoding="utf-8").splitlines()
        if "+++$+++" not in line  # no row of a user's: its record is another file's
        for row in json.loads(line)["rows"]
    ),
]
KEYS = sorted({key for row in SAMPLES for key in row} | {"role", "content", "from", "value", "turn_1", "name"})


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


ODD: list[Any] = [
    *(None, True, -1, 10**30, 1e308, float("nan"), float("inf"), "", " \n", "\x00", "\ud800", "a\udfffb", "None"),
    *(
        [],
        {},
        [[]],
        [None],
        [[None, 1]],
        {"": None},
        nested(500),
        "语" * 55_000,
        '{"name": "\\ud83d"}',
        "<|Human|>: <eoh>",
    ),
]
VALUES = st.sampled_from(range(len(ODD))).map(ODD.__getitem__) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in a value, as its container and the key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def changed(row: dict[str, Any], number: int, value: Any) -> dict[str, Any]:
    """Return `row` with one of its values, at any depth, another."""
    copy: dict[str, Any] = json.loads(json.dumps(row))
    container, key = places(copy)[number % len(places(copy))]
    container[key] = value
    return copy


def damaged(row: bytes, kind: str, place: int, byte: int) -> bytes:
    """Return `row` with bytes changed, put in, taken out or doubled."""
    place %= len(row)
    return {
        "flip": row[:place] + bytes([row[place] ^ (1 << byte % 8)]) + row[place + 1 :],
        "set": row[:place] + bytes([byte]) + row[place + 1 :],
        "insert": row[:place] + bytes([byte]) * (1 + byte % 4) + row[place:],
        "delete": row[:place] + row[place + 1 + byte % 20 :],
        "cut": row[:place],
        "double": row[:place] + row,
        "quote": row[:place] + b'"' + row[place:],
        "line": row[:place] + b"\n" + row[place:],
    }[kind]


def with_more(row: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return `row` with a field it may not have had."""
    return row | {key: value}


KINDS = ["flip", "set", "insert", "delete", "cut", "double", "quote", "line"]
WHOLE = st.sampled_from(SAMPLES)
MORE = st.builds(with_more, st.sampled_from(SAMPLES), st.sampled_from(KEYS), VALUES)
CHANGED = st.builds(changed, st.sampled_from(SAMPLES), st.integers(0, 99), VALUES)
DAMAGED = st.builds(
    lambda row, *how: damaged(json.dumps(row, ensure_ascii=False).encode(), *how),
    *(st.sampled_from(SAMPLES), st.sampled_from(KINDS), st.integers(0, 500), st.integers(0, 255)),
)


def as_bytes(row: Any) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


def as_cells(rows: list[Any]) -> bytes:
    """Return rows as a table whose cells are JSON or text, with quotes left as they fall."""
    lines = [",".join(KEYS).encode()]
    for row in rows:
        cells = [row.get(key) for key in KEYS] if isinstance(row, dict) else ["", row]
        lines.append(
            b",".join(
                cell.encode("utf-8", "surrogatepass") if isinstance(cell, str) else as_bytes(cell) for cell in cells
            )
        )
    return b"\n".join(lines)


def as_parquet(rows: list[Any]) -> bytes:
    """Return rows as a table of text columns, as far as text goes."""

    def text(value: Any) -> str | None:
        return value if value is None or isinstance(value, str) else json.dumps(value)

    objects = [row for row in rows if isinstance(row, dict)]
    columns = {key: [(text(row.get(key)) or "").encode("utf-8", "surrogatepass") for row in objects] for key in KEYS}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({key: pa.array(column).view(pa.string()) for key, column in columns.items()}), sink)
    return sink.getvalue().to_pybytes()


CONTAINERS: dict[str, Callable[[list[Any]], bytes]] = {
    "a.jsonl": lambda rows: b"\n".join(map(as_bytes, rows)),
    "a.jsonl.gz": lambda rows: gzip.compress(b"\r\n".join(map(as_bytes, rows))),
    "a.jsonl.zst": lambda rows: pa.compress(b"\n\n".join(map(as_bytes, rows)), "zstd", asbytes=True),
    "a.json": lambda rows: b"[" + b",\n".join(map(as_bytes, rows)) + b"]",
    "a.txt": lambda rows: b"\n\n".join(b" " + as_bytes(row) for row in rows),
    "a.csv": as_cells,
    "a.parquet": as_parquet,
}


def unpacked(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read())
