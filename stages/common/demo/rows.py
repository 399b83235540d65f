"""The raw files of the demo world: rows with what was planted in them, and how they are written."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Files = dict[str, list["Row"]]
CRAWL = "crawl.jsonl"
CHECKS = "checks.jsonl"
FILES = (
    "prose_en.txt",
    "prose_zh.txt",
    "quiz.txt",
    "articles.jsonl",
    CRAWL,
    "conversations_sharegpt.jsonl",
    "conversations_openai.jsonl",
    "comparisons.jsonl",
    "prompts.jsonl",
    "questions.jsonl",
    CHECKS,
)


@dataclass(eq=False)
class Row:
    """One raw row: a paragraph, a JSON object, or bytes as they are; `fault` and `detail` say what
    was planted.
    """

    body: str | dict[str, Any] | bytes
    fault: str = ""
    detail: dict[str, str] = field(default_factory=dict)
    of: "Row | None" = None


def write(files: Files, folder: Path) -> dict[str, list[dict[str, str]]]:
    """Write every file and return the planted rows by fault; ids are `<folder>/<file>:<line>`,
    lines from 1.
    """
    ids: dict[Row, str] = {}
    for name, rows in files.items():
        paragraphs = name.endswith(".txt")
        line, content = 1, bytearray()
        for row in rows:
            body = encode(row.body, paragraphs) + (b"\n\n" if paragraphs else b"\n")
            ids[row] = f"{folder.name}/{name}:{line}"
            line += body.count(b"\n")
            content += body
        (folder / name).write_bytes(content)
    planted: dict[str, list[dict[str, str]]] = {}
    for row, place in ids.items():
        if row.fault:
            original = {"of": ids[row.of]} if row.of else {}
            planted.setdefault(row.fault, []).append({"id": place, **row.detail, **original})
    return dict(sorted(planted.items()))


def encode(body: str | dict[str, Any] | bytes, paragraphs: bool) -> bytes:
    """Return a row's bytes: as they are, as a paragraph, or as one JSON line."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str) and paragraphs:
        return body.encode()
    return json.dumps({"text": body} if isinstance(body, str) else body, ensure_ascii=False).encode()


def empty(folder: Path) -> Path:
    """Return the folder, made if need be, without the files of an earlier demo; other files in it
    stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    return folder
