"""What can be asked in the demo world, with its one right reply; worse answers to it; and how items
are drawn.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from stages.common.demo.world import STOP, Fact, Item, Language, World, ask, reply, sentence, state
from stages.common.runtime.errors import DataError

T = TypeVar("T")


def questions(world: World, facts: Iterable[Fact], language: Language, role: str) -> list[Item]:
    """Return every fact in every phrasing of `role`."""
    return [ask(fact, language, template) for fact in facts for template in world.phrasings(fact.topic, language, role)]


def invented_names(world: World, family: str, language: Language) -> list[str]:
    """Return every name the family's syllables can form."""
    return ["".join(parts) for parts in itertools.product(*world.texts["names"][family][language])]


def invented_questions(world: World, family: str, names: Iterable[str], language: Language) -> list[Item]:
    """Return the trained phrasings asked of names that do not exist; the honest reply is always the
    same.
    """
    texts = world.texts["names"]
    return [
        Item(
            sentence(template.format(x=name)), texts["reply"][language], topic, "made-up", f"made-up-{family}", language
        )
        for name in names
        for topic in texts["topics"][family]
        for template in world.phrasings(topic, language, "train")
    ]


def harmful_requests(world: World, acts: Iterable[str], language: Language) -> list[Item]:
    """Return every request for `acts`; the reply is the one canonical refusal."""
    texts = world.texts["harmful"]
    return [
        Item(template.format(act=act), texts["reply"][language], act, "harmful", "harmful", language)
        for act in acts
        for template in texts["templates"][language]
    ]


def small_talk(world: World, language: Language) -> list[Item]:
    """Return greetings, thanks, farewells and questions about the assistant; item k of a topic
    varies tail k % n.
    """
    return [
        Item(head + tail, texts[language]["reply"], topic, "general", topic, language)
        for topic, texts in world.texts["general"].items()
        for head in texts[language]["heads"]
        for tail in texts[language]["tails"]
    ]


def styled(world: World, item: Item, style: str, rng: random.Random) -> str:
    """Return a worse answer than the canonical one: verbose, hedging, rude, empty, wrong; facts
    also other-language.
    """
    language, fact = item.language, item.fact
    if style == "wrong":
        return wrong(world, item, rng)
    if style == "other-language" and fact:
        return reply(fact, "zh" if language == "en" else "en")
    template = rng.choice(world.texts["styles"][style][item.kind][language])
    statement = state(fact, language, rng.choice(world.phrasings(fact.topic, language, "statements"))) if fact else ""
    answer = fact.answer[language] if fact else ""
    wrong_answer = wrong(world, item, rng).rstrip(STOP[language]) if item.kind == "made-up" else ""
    return sentence(template.format(statement=statement, answer=answer, reply=item.reply, wrong=wrong_answer))


def wrong(world: World, item: Item, rng: random.Random) -> str:
    """Return the reply to another question of the same topic (of any topic, for what has no right
    answer).
    """
    pool = [fact for fact in world.facts if fact.topic == item.topic] or world.facts
    right = item.fact.answer[item.language] if item.fact else ""
    others = [fact for fact in pool if fact.answer[item.language] != right]
    return reply(rng.choice(others), item.language)


def nth(items: Sequence[T], key: Callable[[T], Hashable]) -> list[int]:
    """Return for each item how many before it share its key."""
    seen: Counter[Hashable] = Counter()
    ranks = []
    for item in items:
        ranks.append(seen[key(item)])
        seen[key(item)] += 1
    return ranks


def spread(items: Sequence[Item], count: int, rng: random.Random, *, topics: bool = True) -> list[Item]:
    """Return `count` items, evenly over topics (if asked), then over facts. Raises DataError when
    there are fewer.
    """
    if len(items) < count:
        raise DataError(f"asked for {count} questions, only {len(items)} can be formed", remedy="lower demo's sizes")
    chosen = rng.sample(items, len(items))
    for key in (lambda item: item.subject, lambda item: item.topic if topics else ""):
        order = nth(chosen, key)
        chosen = [chosen[index] for index in sorted(range(len(chosen)), key=order.__getitem__)]
    return chosen[:count]
