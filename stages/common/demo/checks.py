"""Comparisons of right answers with wrong ones of the same form, and with replies that belong to
other questions.
"""

import random

from stages.common.core import params
from stages.common.demo import groups
from stages.common.demo.conversations import bare, message
from stages.common.demo.groups import Groups
from stages.common.demo.items import styled, wrong
from stages.common.demo.rows import CHECKS, Files, Row
from stages.common.demo.world import LANGUAGES, Item, Language, World
from stages.common.runtime.errors import ParamsError
from stages.common.text import rule_grader

ASTRAY, WRONG_TRIES = 2, 8
WEIGHTS = rule_grader.WEIGHTS | {"undue_ignorance": rule_grader.WEIGHTS["wrong"]}
"""Not to know a fact is no better than to miss it: else who is unsure learns to say so always."""


def add(
    files: Files,
    here: World,
    count: int,
    wrong_answers: int,
    facts: Groups,
    behaviour: Groups,
    rng: random.Random,
) -> None:
    """Add `count` checks on questions that no other comparison asks; the other files are the same
    however many.

    Raises ParamsError when there are not so many questions left.
    """
    bodies = [row.body for row in files["comparisons.jsonl"] if not row.fault and isinstance(row.body, dict)]
    ranked = {body["prompt"][0]["content"] for body in bodies}
    known, other = (
        [item for item in pool["train"] + pool["spare"] if item.text not in ranked] for pool in (facts, behaviour)
    )
    left = len(known) + len(other)
    if count > left:
        what = f"asked for {count} checks, there are only {left} questions left"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy="lower demo.checks")
    for item in groups.mixed(known, other, count, rng):
        files[CHECKS].append(check(here, item, wrong_answers, rng))
    rng.shuffle(files[CHECKS])


def check(world: World, item: Item, wrong_answers: int, rng: random.Random) -> Row:
    """Return the right answer to one question with what only a reader who knows it tells apart,
    ranked by the rules.

    For a fact: the answer in the other language and `wrong_answers` of its kind (small topics have
    fewer); for any question: ASTRAY replies that belong to another kind of question, such as a
    refusal where none is due; for small talk, of which there is little, all of them, and ASTRAY in
    the other language.
    """
    found = {item.reply: None}
    other = styled(world, item, "other-language", rng) if item.fact else item.reply
    if bare(other) != bare(item.reply):
        found[other] = None
    most = len(found) + (wrong_answers if item.fact else 1)
    for _ in range(WRONG_TRIES * wrong_answers):
        if len(found) < most:
            found[wrong(world, item, rng)] = None
    replies = astray(world, item, item.language)
    found |= dict.fromkeys(replies if item.kind == "general" else rng.sample(replies, ASTRAY))
    if item.kind == "general":
        foreign = next(language for language in LANGUAGES if language != item.language)
        found |= dict.fromkeys(rng.sample(astray(world, item, foreign), ASTRAY))
    answers = rng.sample(list(found), len(found))
    judged = [rule_grader.judge(item.text, answer, item.reply, item.category, cut=False) for answer in answers]
    return Row(
        {
            "prompt": [message("user", item.text)],
            "responses": answers,
            "ranks": rule_grader.ranks([rule_grader.score(names, WEIGHTS) for names in judged]),
            "annotator": "rules",
            "categories": [item.category],
        }
    )


def astray(world: World, item: Item, language: Language) -> list[str]:
    """Return the canonical replies in `language` but the item's: a refusal, "I don't know", small
    talk.
    """
    replies = [world.texts["harmful"]["reply"][language], world.texts["names"]["reply"][language]]
    replies += [texts[language]["reply"] for texts in world.texts["general"].values()]
    return [reply for reply in replies if reply != item.reply]
