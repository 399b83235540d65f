"""The demo world: facts from small tables, and what can be asked, stated and answered about them in
two languages.
"""

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from stages.common.runtime.errors import DataError

Language = Literal["en", "zh"]
Kind = Literal["fact", "made-up", "harmful", "general"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
STOPS = ".!?。！？"
STOP = {"en": ".", "zh": "。"}
SPACE = {"en": " ", "zh": ""}
TABLES = ("countries", "elements", "planets", "units", "weekdays", "months", "holidays")
TEXTS = ("phrasings", "names", "harmful", "general", "styles", "scenes", "faults", "boilerplate")
REMEDY = "restore it: git checkout -- data/facts"
T = TypeVar("T")


@dataclass(frozen=True)
class Fact:
    """One checkable fact; `slots` and `answer` by language. Facts of one table row share their
    `subject`.
    """

    topic: str
    subject: str
    slots: dict[str, dict[str, str]]
    answer: dict[str, str]

    @property
    def key(self) -> str:
        """The same in both languages."""
        return f"{self.topic}:{self.subject}"


@dataclass(frozen=True)
class Item:
    """A question with its one canonical reply."""

    text: str
    reply: str
    topic: str
    kind: Kind
    name: str
    language: Language
    fact: Fact | None = None
    template: str = ""

    @property
    def category(self) -> str:
        """Topic and language: `capital/zh`."""
        return f"{self.name}/{self.language}"

    @property
    def subject(self) -> str:
        """What is asked about: the fact, or the question itself where there is none."""
        return self.fact.key if self.fact else self.text


@dataclass(frozen=True)
class World:
    """All facts, and the texts that turn them into sentences (one entry for each JSON file)."""

    facts: list[Fact]
    texts: dict[str, Any]

    def phrasings(self, topic: str, language: Language, role: str) -> list[str]:
        """Return the templates of a topic; `role` is train, ood, prompts, statements or
        follow_ups.
        """
        found: list[str] = self.texts["phrasings"][topic][language][role]
        return found


def read(folder: Path, largest_addend: int, facts_per_topic: int | None = None) -> World:
    """Return the world in `folder`, of each topic `facts_per_topic` facts, evenly from its table.

    Raises DataError naming the file when one is missing or malformed.
    """
    texts = {name: _guarded(folder / f"{name}.json", lambda file: json.loads(_text(file))) for name in TEXTS}
    tables = {name: _guarded(folder / f"{name}.csv", _rows) for name in TABLES}
    facts: list[Fact] = []
    for topic, plan in texts["phrasings"].items():
        try:
            found = table_facts(topic, plan, tables[plan["table"]]) if plan["table"] else sums(topic, largest_addend)
        except KeyError as error:
            raise DataError(f"no column {error}", where=folder / f"{plan['table']}.csv", remedy=REMEDY) from error
        most = min(facts_per_topic or len(found), len(found))
        facts += [found[at * len(found) // most] for at in range(most)]
    return World(facts, texts)


def table_facts(topic: str, plan: dict[str, Any], rows: list[dict[str, str]]) -> list[Fact]:
    """Return one fact for each row whose answer cell is filled; `name` finds column `name_en` or
    plain `name`.
    """

    def cells(row: dict[str, str], column: str) -> dict[str, str]:
        return {language: row[f"{column}_{language}" if f"{column}_en" in row else column] for language in LANGUAGES}

    facts = []
    for row in rows:
        slots = {slot: cells(row, column) for slot, column in plan["slots"].items()}
        by_language: dict[str, dict[str, str]] = {
            language: {slot: cell[language] for slot, cell in slots.items()} for language in LANGUAGES
        }
        answer = cells(row, plan["answer"])
        if all(answer.values()):
            subject = "/".join([plan["table"], *by_language["en"].values()])
            facts.append(Fact(topic, subject, by_language, answer))
    return facts


def sums(topic: str, largest_addend: int) -> list[Fact]:
    """Return every a + b with both at most `largest_addend`."""
    return [
        Fact(
            topic,
            f"{a}+{b}",
            {language: {"a": str(a), "b": str(b)} for language in LANGUAGES},
            {language: str(a + b) for language in LANGUAGES},
        )
        for a, b in itertools.product(range(largest_addend + 1), repeat=2)
    ]


def sentence(text: str) -> str:
    """Return `text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def state(fact: Fact, language: Language, template: str) -> str:
    """Return the fact as a sentence."""
    return sentence(template.format(**fact.slots[language], answer=fact.answer[language]))


def reply(fact: Fact, language: Language) -> str:
    """Return the one canonical answer: `Paris.`, `北京。`."""
    return sentence(fact.answer[language]) + STOP[language]


def ask(fact: Fact, language: Language, template: str) -> Item:
    """Return the question about a fact."""
    text = sentence(template.format(**fact.slots[language]))
    return Item(text, reply(fact, language), fact.topic, "fact", fact.topic, language, fact, template)


def _guarded(file: Path, load: Callable[[Path], T]) -> T:
    try:
        return load(file)
    except FileNotFoundError as error:
        raise DataError("file not found", where=file, remedy=REMEDY) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"malformed: {error}", where=file, remedy=f"correct it, or {REMEDY}") from error


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, strict=True))
