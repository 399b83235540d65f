"""A model that reads tokens reverses a word more easily when its letters are spelled."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

SYLLABLES = [first + vowel for first in "bdfgklmnprst" for vowel in "aeiou"]
TRAINED, ASKED = 1200, 100


def words() -> list[str]:
    """Return made-up words of three syllables, in an order that is always the same."""
    found = ["".join(parts) for parts in itertools.product(SYLLABLES, repeat=3)]
    return random.Random(1).sample(found, TRAINED + ASKED)


def raw(between: str) -> dict[str, str]:
    """Return conversations that reverse words, and questions about other words; letters stand with
    `between` between them.
    """
    rows = []
    for word in words():
        ask = {"role": "user", "content": f"Reverse: {between.join(word)}"}
        rows.append((ask, between.join(reversed(word)) + "."))
    trained = [{"messages": [ask, {"role": "assistant", "content": said}]} for ask, said in rows[:TRAINED]]
    asked = [
        {"messages": [ask], "reference": said, "group": "spelling", "category": "spelling/en"}
        for ask, said in rows[TRAINED:]
    ]
    return {"spelling/conversations.jsonl": lines(trained), "spelling/questions.jsonl": lines(asked)}


def lines(rows: list[dict[str, Any]]) -> str:
    """Return rows as a file has them."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def measure(folder: Path) -> Measured:
    """Return which words are reversed rightly; questions have the same numbers in both arms."""
    return {"right": measures.correct(folder, "sft_best", "spelling")}


EXPERIMENT = Experiment(
    claim="A word is reversed more often rightly when its letters are spelled (l-o-l-l-i-p-o-p).",
    source="Sennrich et al. 2016 for subwords; a known demonstration with the word lollipop for the claim",
    arms={"whole": Arm(raw=raw("")), "spelled": Arm(raw=raw("-"))},
    until=("evaluate@sft_best",),
    measure=measure,
    tests=(Contrast("spelled against whole", ("spelled", "right"), ("whole", "right")),),
)
