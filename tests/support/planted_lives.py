"""Lives as documents, the facts that they state, and a reader of them that errs in known ways."""

import json
import random
from dataclasses import dataclass
from typing import Any

from tests.support.judge_server import Messages

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "born": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "born", "city"],
    "x-lathe": {"conversations": [["Where was {name} born?", "{city}."], ["When was {name} born?", "In {born}."]]},
}
CITIES = ["Aldfurt", "Brenwick", "Corvalle", "Dunmere", "Eastholm", "Fennloch", "Grimsay", "Hartwell"]
PEOPLE, FEW = 200, 20


@dataclass(frozen=True)
class Person:
    """What one document says."""

    name: str
    born: int
    city: str
    left: int
    lived: str

    @property
    def record(self) -> dict[str, Any]:
        return {"name": self.name, "born": self.born, "city": self.city}

    @property
    def text(self) -> str:
        return f"{self.name} was born in {self.city} in {self.born}. In {self.left} the family moved to {self.lived}."


def people() -> list[Person]:
    dice, found = random.Random(5), []
    for number in range(PEOPLE):
        city, lived = dice.sample(CITIES, 2)
        born = dice.randint(1700, 1950)
        found.append(Person(f"Person {chr(65 + number % 26)}{number}", born, city, born + dice.randint(2, 15), lived))
    return found


KNOWN = {one.text: one for one in people()}


def reply(messages: Messages) -> str:
    """Say what the document says; of 20 one time not at all, and four times wrongly: a span that is
    made up, a year that its span does not say, a city and a year of the wrong sentence with its
    span, a reply cut off.
    """
    one = KNOWN[messages[-1]["content"].split("Document:\n")[1]]
    name, born = {"span": one.name, "value": one.name}, {"span": f"in {one.born}", "value": one.born}
    city = {"span": f"born in {one.city}", "value": one.city}
    kind = random.Random(one.name).randrange(20)
    if kind == 0:
        return '{"records": []}'
    if kind == 1:
        city = {"span": f"a native of {one.city}", "value": one.city}
    if kind == 2:
        born = born | {"value": one.born + 1}
    if kind == 3:
        city = {"span": f"moved to {one.lived}", "value": one.lived}
        born = {"span": f"In {one.left}", "value": one.left}
    said = json.dumps({"records": [{"name": name, "born": born, "city": city}]})
    return said[:40] if kind == 4 else said


def accuracy(found: list[dict[str, Any]]) -> tuple[float, float]:
    """Return precision and recall against what the documents say."""
    truth = {one.name: one.record for one in KNOWN.values()}
    right = sum(truth[one["name"]] == one for one in found)
    return right / len(found), right / len(truth)
