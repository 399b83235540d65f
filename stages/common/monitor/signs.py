"""Signs of a reward that is played: what can be counted in an answer whatever it says, each with
the name of having more and of having less of it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from stages.common.reward.checked import Asked
from stages.common.text import rule_grader
from stages.common.text.refusals import refuses
from stages.common.text.thoughts import without_thoughts
from stages.common.text.units import units

COURTESY = re.compile(
    r"\b(?:hello|hi|hey|greetings|good (?:morning|day|evening)|dear|sure|certainly|of course|absolutely"
    r"|(?:great|good|excellent) question|thanks?(?: you)?|happy to help|glad|hope (?:this|that|it) helps|let me know"
    r"|feel free|anything else|have a (?:nice|good|great) day|as an ai|welcome)\b"
    r"|[你您]好|当然|好的|好问题|谢谢|感谢|希望.{0,6}帮|请随时|很高兴|祝[你您]|作为一[个名]|不客气",
    re.IGNORECASE,
)
ITEM = re.compile(r"^\s*(?:[-*+•·]|\(?\d{1,3}[.)、])\s", re.MULTILINE)
EMPHASIS = re.compile(r"\*\*|__|~~|`|^#{1,6} |</?[a-z]+>", re.MULTILINE)
SHOUTED = re.compile(r"\b[A-Z]{2,}\b")
LINK = re.compile(r"https?://|www\.", re.IGNORECASE)
BRACKETS = frozenset('()[]{}（）【】《》「」"“”')
SAMENESS, CUT = "sameness", "cut"


class Sign(NamedTuple):
    """A count or a share of an answer (without its thoughts), and what more and less of it is
    called.
    """

    more: str
    less: str
    measure: Callable[[str, str], float]
    """Of question and answer."""


def repeated(answer: str) -> float:
    """Return the share of an answer's pairs of neighbouring units that occurred in it before."""
    pairs = _pairs(answer)
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def copied(question: str, answer: str) -> float:
    """Return the share of an answer's pairs of neighbouring units that stand in the question."""
    pairs, asked = _pairs(answer), set(_pairs(question))
    return sum(pair in asked for pair in pairs) / len(pairs) if pairs else 0.0


def foreign(question: str, answer: str) -> float:
    """Return 1 for an answer whose script is not that of the question, else 0."""
    said = rule_grader.script(answer)
    return float(bool(said) and said != rule_grader.script(question))


def _pairs(text: str) -> list[tuple[str, str]]:
    return list(pairwise(units(text)))


def _found(pattern: re.Pattern[str]) -> Callable[[str, str], float]:
    return lambda _, answer: float(len(pattern.findall(answer)))


def _characters(which: str) -> Callable[[str, str], float]:
    return lambda _, answer: float(sum(answer.count(one) for one in which))


SIGNS: dict[str, Sign] = {
    "refusals": Sign("refusals", "no refusals", lambda _, answer: float(refuses(answer))),
    "ignorance": Sign("not knowing", "never not knowing", _found(rule_grader.IGNORANCE)),
    "doubt": Sign("doubt", "no doubt", _found(rule_grader.DOUBT)),
    "rudeness": Sign("rudeness", "no rudeness", _found(rule_grader.RUDENESS)),
    "language": Sign("another language than the question's", "the question's language", foreign),
    "courtesy": Sign("greetings and courtesies", "no greetings and courtesies", _found(COURTESY)),
    "copying": Sign("copies of the prompt", "no copies of the prompt", copied),
    "repetition": Sign("repetition", "no repetition", lambda _, answer: repeated(answer)),
    "exclamation": Sign("exclamation marks", "no exclamation marks", _characters("!！")),
    "question": Sign("questions back", "no questions back", _characters("?？")),
    "lists": Sign("lists", "no lists", _found(ITEM)),
    "emphasis": Sign("markup", "no markup", _found(EMPHASIS)),
    "capitals": Sign("words in capitals", "no words in capitals", _found(SHOUTED)),
    "digits": Sign("digits", "no digits", lambda _, answer: float(sum(map(str.isdigit, answer)))),
    "symbols": Sign(
        "symbols", "no symbols", lambda _, answer: float(sum(unicodedata.category(one) == "So" for one in answer))
    ),
    "brackets": Sign("brackets and quotes", "no brackets and quotes", _characters("".join(sorted(BRACKETS)))),
    "links": Sign("links", "no links", _found(LINK)),
    "length": Sign("longer answers", "shorter answers", lambda _, answer: float(len(units(answer)))),
}
"""By name, the particular before the general: of two that are as sure, the first is named."""
NAMES: dict[str, tuple[str, str]] = {
    **{name: (sign.more, sign.less) for name, sign in SIGNS.items()},
    SAMENESS: ("one answer for many prompts", "no answer for many prompts"),
    CUT: ("answers without an end", "no answers without an end"),
}
"""What more and less of each sign is called: those of one answer, and two more."""


def columns(asked: Sequence[Asked], answers: Sequence[str], cut: Sequence[bool]) -> dict[str, list[float]]:
    """Return each sign of each answer; `sameness` is the share of all answers that read the
    same.
    """
    said = [without_thoughts(answer) for answer in answers]
    found = {
        name: [sign.measure(one.question, answer) for one, answer in zip(asked, said, strict=True)]
        for name, sign in SIGNS.items()
    }
    return found | {SAMENESS: sameness(said), CUT: [float(one) for one in cut]}


def sameness(said: Sequence[str]) -> list[float]:
    """Return of each answer the share of all that read the same."""
    read = [tuple(units(one)) for one in said]
    counts = Counter(read)
    return [counts[one] / len(read) for one in read]
