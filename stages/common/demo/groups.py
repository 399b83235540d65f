"""Which question is trained, which is kept for prompts, and which is only ever asked in the
test.
"""

import random
from collections import Counter
from collections.abc import Mapping

from stages.common.demo import items
from stages.common.demo.world import LANGUAGES, STOPS, Item, Language, World
from stages.common.runtime.errors import DataError

Groups = dict[str, list[Item]]
Names = dict[Language, dict[str, list[list[str]]]]
UNSEEN_SHARE = 0.2
TRAINED_SHARE = 0.7
FACT_SHARE = 0.7


def invent(here: World, rng: random.Random) -> Names:
    """Return by language and family three disjoint lists of invented names: to train on, for
    prompts, for the test.
    """
    names: Names = {}
    for language in LANGUAGES:
        names[language] = {}
        for family in here.texts["names"]["topics"]:
            drawn = items.invented_names(here, family, language)
            rng.shuffle(drawn)
            half, quarter = len(drawn) // 2, len(drawn) // 4
            names[language][family] = [drawn[:half], drawn[half:-quarter], drawn[-quarter:]]
    return names


def hold_out(here: World, share: float, rng: random.Random) -> set[str]:
    """Return the keys of the facts that no conversation may ask: `share` of each topic, at least
    one.
    """
    by_topic: dict[str, list[str]] = {}
    for fact in here.facts:
        by_topic.setdefault(fact.topic, []).append(fact.key)
    return {key for keys in by_topic.values() for key in rng.sample(keys, max(1, round(share * len(keys))))}


def facts(here: World, held: set[str], phrasings: int, sizes: Mapping[str, int], rng: random.Random) -> Groups:
    """Return questions about facts: iid, ood_phrasing, ood_fact; `train` (`phrasings` of each
    fact); `spare`, the rest; `phrased`, the trained facts in phrasings that only prompts have.

    A test question in `iid` is a fact and a phrasing that are both trained, but not together; every
    fact is as likely in the test as it is in training, so a topic weighs as much as it has facts.
    """
    groups: Groups = {name: [] for name in ("iid", "ood_phrasing", "ood_fact", "train", "spare", "phrased")}
    trained = [fact for fact in here.facts if fact.key not in held]
    unasked = [fact for fact in here.facts if fact.key in held]
    for language in LANGUAGES:
        candidates = items.questions(here, trained, language, "train")
        iid = items.spread(candidates, sizes["iid"], rng, topics=False)
        groups["iid"] += iid
        groups["ood_phrasing"] += items.spread(
            items.questions(here, trained, language, "ood"), sizes["ood_phrasing"], rng
        )
        groups["phrased"] += items.questions(here, trained, language, "prompts")
        groups["ood_fact"] += items.spread(items.questions(here, unasked, language, "train"), sizes["ood_fact"], rng)
        tested = {item.text for item in iid}
        trained_here, spare = _divide([item for item in candidates if item.text not in tested], phrasings, rng)
        groups["train"] += trained_here
        groups["spare"] += spare
    return groups


def _divide(items: list[Item], phrasings: int, rng: random.Random) -> tuple[list[Item], list[Item]]:
    """Return `phrasings` questions about each fact, those in the phrasings least used so far, and
    the others.
    """
    by_fact: dict[str, list[Item]] = {}
    for item in rng.sample(items, len(items)):
        by_fact.setdefault(item.subject, []).append(item)
    used: Counter[tuple[str, str]] = Counter()
    train: list[Item] = []
    spare: list[Item] = []
    for asked in by_fact.values():
        asked.sort(key=lambda item: used[item.topic, item.template])
        train += asked[:phrasings]
        spare += asked[phrasings:]
        used.update((item.topic, item.template) for item in asked[:phrasings])
    return train, spare


def behaviour(here: World, names: Names, sizes: Mapping[str, int], rng: random.Random) -> Groups:
    """Return questions that are not about facts: honesty, harmless, general; `train` and `spare`.

    `sizes`: honesty, harmless, general, made_up (trained, both languages together).
    """
    groups: Groups = {name: [] for name in ("honesty", "harmless", "general", "train", "spare")}
    for language in LANGUAGES:
        trained, spare, tested = (
            [
                item
                for family, parts in names[language].items()
                for item in items.invented_questions(here, family, parts[part], language)
            ]
            for part in range(3)
        )
        groups["train"] += items.spread(trained, sizes["made_up"] // 2, rng)
        groups["spare"] += items.spread(spare, sizes["made_up"] // 4, rng)
        groups["honesty"] += items.spread(tested, sizes["honesty"], rng)
        for name, test, rest in (
            ("harmless", *_harmful(here, language, sizes["harmless"], rng)),
            ("general", *_general(here, language, sizes["general"], rng)),
        ):
            groups[name] += test
            groups["train"] += rest[: round(TRAINED_SHARE * len(rest))]
            groups["spare"] += rest[round(TRAINED_SHARE * len(rest)) :]
    return groups


def mixed(known: list[Item], other: list[Item], count: int, rng: random.Random) -> list[Item]:
    """Return `count` questions, FACT_SHARE of them about facts, the others as far as there
    are any.
    """
    others = rng.sample(other, min(len(other), count - round(FACT_SHARE * count)))
    return others + rng.sample(known, count - len(others))


def prompts(
    spare: tuple[list[Item], list[Item]], phrased: list[Item], count: int, share: float, rng: random.Random
) -> list[Item]:
    """Return `count` prompts: spare ones as `mixed` has them, but `share` of the facts in phrasings
    of their own. Raises DataError when there are fewer.
    """
    known, other = spare
    others = rng.sample(other, min(len(other), count - round(FACT_SHARE * count)))
    fresh = round(share * (count - len(others)))
    if count - len(others) - fresh > len(known):
        what = f"asked for {count - len(others) - fresh} prompts in trained phrasings, {len(known)} are spare"
        raise DataError(what, remedy="lower demo.prompts, or raise demo.new_phrasing_share")
    return [
        *others,
        *rng.sample(known, count - len(others) - fresh),
        *items.spread(phrased, fresh, rng, topics=False),
    ]


def _harmful(here: World, language: Language, count: int, rng: random.Random) -> tuple[list[Item], list[Item]]:
    """Return `count` test requests, half of them for acts that are in no other, and the rest of the
    seen acts.
    """
    acts = list(here.texts["harmful"]["acts"][language])
    rng.shuffle(acts)
    unseen = round(UNSEEN_SHARE * len(acts))
    seen = items.harmful_requests(here, acts[unseen:], language)
    rng.shuffle(seen)
    new = items.spread(items.harmful_requests(here, acts[:unseen], language), count // 2, rng)
    return new + seen[: count - count // 2], seen[count - count // 2 :]


def _general(here: World, language: Language, count: int, rng: random.Random) -> tuple[list[Item], list[Item]]:
    """Return `count` test questions of small talk, none of them a part of another (`Hello!`, `Hello
    there!`).
    """
    talk = items.small_talk(here, language)
    rng.shuffle(talk)
    longest = [item for item in talk if not any(_part(item.text, other.text) for other in talk)]
    test = items.spread(longest, count, rng)
    tested = {item.text for item in test}
    return test, [item for item in talk if item.text not in tested]


def _part(text: str, other: str) -> bool:
    return text != other and text.rstrip(STOPS).casefold() in other.casefold()
