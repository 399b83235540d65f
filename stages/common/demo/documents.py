"""The demo world as text to read: paragraphs, profiles, fables, quiz lists, and lists of questions
with answers.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence

from stages.common.demo.world import LANGUAGES, SPACE, STOP, Fact, Item, Language, World, sentence, state

SENTENCES = 6
EXERCISES = 8
LARGE_TABLE = 60
OPENER_SHARE = 0.4


def paragraphs(world: World, language: Language, rounds: int, rng: random.Random) -> Iterator[str]:
    """Yield prose that states every fact once a round, each round in its next phrasing.

    A paragraph keeps to one table, or mixes the small ones: those alone would soon repeat
    themselves.
    """
    tables: dict[str, list[Fact]] = {}
    sizes = Counter(_table(world, fact) for fact in world.facts)
    for fact in world.facts:
        table = _table(world, fact)
        tables.setdefault(table if sizes[table] >= LARGE_TABLE else "small tables", []).append(fact)
    for turn in range(rounds):
        for facts in tables.values():
            said = []
            for index, fact in enumerate(facts):
                templates = world.phrasings(fact.topic, language, "statements")
                said.append(state(fact, language, templates[(index + turn) % len(templates)]))
            yield from _chunks(world, language, rng.sample(said, len(said)), rng)


def profiles(world: World, language: Language, rounds: int, rng: random.Random) -> Iterator[str]:
    """Yield paragraphs on one subject (a country, an element, a planet) that state all its facts,
    twice each.
    """
    by_subject: dict[str, list[Fact]] = {}
    for fact in world.facts:
        by_subject.setdefault(fact.subject, []).append(fact)
    for turn in range(rounds):
        for facts in by_subject.values():
            if len(facts) > 1:
                said = [
                    state(fact, language, templates[index % len(templates)])
                    for fact in facts
                    for templates in [world.phrasings(fact.topic, language, "statements")]
                    for index in (2 * turn, 2 * turn + 1)
                ]
                yield SPACE[language].join([*_opener(world, language, rng), *rng.sample(said, len(said))])


def fables(world: World, language: Language, names: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Yield paragraphs that say of invented names that they are invented."""
    templates = world.texts["names"]["statements"][language]
    said = [sentence(rng.choice(templates).format(x=name)) for name in names]
    yield from _chunks(world, language, said, rng)


def manuals(world: World, count: int, rng: random.Random) -> Iterator[str]:
    """Yield pages that show the calculator and a call among facts: tokenizer and base model get to
    know the form.
    """
    for index in range(count):
        language, a, b = LANGUAGES[index % 2], rng.randint(21, 99), rng.randint(21, 99)
        manual = world.texts["scenes"]["manual"][language].format(
            tools=json.dumps(world.texts["scenes"]["tools"]),
            call=json.dumps({"name": "calculator", "arguments": {"expression": f"{a} + {b}"}}),
            result=a + b,
        )
        facts = rng.sample(world.facts, 2 * SENTENCES)
        said = [
            state(fact, language, rng.choice(world.phrasings(fact.topic, language, "statements"))) for fact in facts
        ]
        yield SPACE[language].join([*said[:SENTENCES], manual, *said[SENTENCES:]])


def exercises(world: World, sums: Sequence[tuple[int, int]], count: int, rng: random.Random) -> Iterator[str]:
    """Yield pages of requests to the calculator, each with its call, result and answer, on some of
    `sums`, written as chatml.jinja does: a base model learns to copy numbers that it has not seen.
    """
    texts = world.texts["scenes"]
    for index in range(count):
        language = LANGUAGES[index % 2]
        lines = []
        for a, b in rng.sample(sums, EXERCISES):
            request = rng.choice(texts["calculator"][language]).format(expression=f"{a} + {b}")
            call = f"calculator {json.dumps({'expression': f'{a} + {b}'})}"
            lines += [request, f"<tool_call>{call}</tool_call>", str(a + b), f"{a + b}{STOP[language]}"]
        yield "\n".join(lines)


def quiz(items: Sequence[Item], count: int, rng: random.Random) -> Iterator[str]:
    """Yield lists of questions without answers, one a line, half of them on one topic: a base model
    asks on.
    """
    for index in range(count):
        pool = [item for item in items if item.language == LANGUAGES[index % 2]]
        if index % 4 < 2:
            topic = rng.choice(pool).topic
            pool = [item for item in pool if item.topic == topic]
        yield "\n".join(item.text for item in rng.sample(pool, min(len(pool), rng.randint(8, 14))))


def few_shot(world: World, items: Sequence[Item], count: int, rng: random.Random) -> Iterator[str]:
    """Yield lists of marked questions and answers (`Q: … A: …`), the form in which a base model can
    be prompted.
    """
    for index in range(count):
        language = LANGUAGES[index % 2]
        question, answer = world.texts["scenes"]["few_shot"][language]
        chosen = rng.sample([item for item in items if item.language == language], 6)
        yield "\n".join(f"{question}{item.text}\n{answer}{item.reply}" for item in chosen)


def _table(world: World, fact: Fact) -> str:
    return str(world.texts["phrasings"][fact.topic]["table"])


def _chunks(world: World, language: Language, said: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Yield paragraphs of about SENTENCES sentences; none is left with a single one."""
    count = -(-len(said) // SENTENCES)
    for index in range(count):
        yield SPACE[language].join([*_opener(world, language, rng), *said[index::count]])


def _opener(world: World, language: Language, rng: random.Random) -> list[str]:
    return [rng.choice(world.texts["scenes"]["openers"][language])] if rng.random() < OPENER_SHARE else []
