"""The demo's raw files read back, and its facts from their tables, by code that shares nothing with
the generator.
"""

import csv
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages import demo
from stages.common.demo import rows, world

FACTS = Path(__file__).parents[2] / "data/facts"
Found = dict[str, Any]


def generate(out: Path, **changes: Any) -> Found:
    """Write the world and return its report, as the stage does."""
    p = demo.Params(**changes)
    files = demo.build(world.read(FACTS, p.largest_addend, p.facts_per_topic), p) if p.enabled else {}
    report: Found = json.loads(json.dumps(demo.summary(p, files, rows.write(files, rows.empty(out)))))
    return report


def compact(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


@dataclass
class Raw:
    """What a reader of the raw files finds: rows by id, and the ids of rows that cannot be read,
    with the reason.
    """

    report: Found
    documents: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Found] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def planted(self, *names: str) -> dict[str, Found]:
        return {row["id"]: row for name in names for row in self.report["planted_rows"].get(name, [])}

    def of(self, file: str) -> dict[str, Found]:
        broken = self.planted("malformed")
        return {key: row for key, row in self.rows.items() if f"/{file}" in key and key not in broken}

    def conversations(self) -> dict[str, list[Found]]:
        return {key: turns(row) for key, row in self.of("conversations").items()}

    def questions(self, group: str = "") -> dict[str, Found]:
        return {key: row for key, row in self.of("questions").items() if not group or row["group"] == group}


def turns(row: Found) -> list[Found]:
    """Return ShareGPT's or OpenAI's turns as role and content."""
    if "messages" in row:
        return [{"role": turn["role"], "content": turn["content"] or "call"} for turn in row["messages"]]
    roles = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
    return [{"role": roles.get(t["from"], t["from"]), "content": t["value"]} for t in row["conversations"]]


def scan(folder: Path, report: Found) -> Raw:
    raw = Raw(report)
    for file in sorted(folder.iterdir()):
        paragraphs, line = file.suffix == ".txt", 1
        for data in file.read_bytes().split(b"\n\n" if paragraphs else b"\n"):
            key, line = f"{folder.name}/{file.name}:{line}", line + data.count(b"\n") + (2 if paragraphs else 1)
            try:
                if not data:
                    continue
                if paragraphs:
                    raw.documents[key] = data.decode()
                    continue
                row = json.loads(data)
                raw.rows[key] = row
                if isinstance(row.get("text"), str):
                    raw.documents[key] = row["text"]
            except UnicodeDecodeError:
                raw.unreadable[key] = "bad-utf8"
            except json.JSONDecodeError:
                raw.unreadable[key] = "broken-json"
    return raw


def table(name: str) -> list[dict[str, str]]:
    with (FACTS / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


# Read off the tables by hand: topic -> table, columns that ask, column that answers.
COLUMNS = {
    "capital": ("countries", ["name"], "capital"),
    "continent": ("countries", ["name"], "continent"),
    "element-symbol": ("elements", ["name"], "symbol"),
    "element-number": ("elements", ["name"], "number"),
    "planet-order": ("planets", ["name"], "order"),
    "planet-at": ("planets", ["ordinal"], "name"),
    "unit": ("units", ["big", "small"], "factor"),
    "weekday-after": ("weekdays", ["name"], "after"),
    "weekday-before": ("weekdays", ["name"], "before"),
    "month-after": ("months", ["name"], "after"),
    "month-before": ("months", ["name"], "before"),
    "holiday": ("holidays", ["name"], "date"),
}


@dataclass(frozen=True)
class Known:
    topic: str
    language: str
    key: tuple[str, ...]
    role: str
    template: str
    answer: str


def known_facts() -> Iterator[tuple[str, str, tuple[str, ...], dict[str, str], str]]:
    """Yield topic, language, key (the same in both languages), slots and answer of every fact in
    the tables.
    """
    for language in ("en", "zh"):
        for topic, (name, asks, answers) in COLUMNS.items():
            for row in table(name):
                cells = [row.get(f"{column}_{language}", row.get(column, "")) for column in asks]
                key = tuple(row.get(f"{column}_en", row.get(column, "")) for column in asks)
                answer = row.get(f"{answers}_{language}", row.get(answers, ""))
                if answer:
                    yield topic, language, key, dict(zip("xy", cells, strict=False)), answer
        for a, b in itertools.product(range(10), repeat=2):
            yield "sum", language, (str(a), str(b)), {"a": str(a), "b": str(b)}, str(a + b)


def chinese(text: str) -> bool:
    return any("一" <= letter <= "鿿" for letter in text)


def normal(answer: str) -> str:
    return answer.rstrip(".。!！").casefold()


def reference_of(known: dict[str, list[Known]], text: str) -> set[str]:
    return {normal(entry.answer) for entry in known.get(text, [])}
