r"""Whether an answer is right, by the kind of question: the same text, a part, a number, a box or a
lettered choice.

All are pure functions of an answer without thoughts and its reference. `number` and `choice` read
the last box, else what follows the last "answer is" (答案是, ####), else the last number or the one
letter that stands alone.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

from stages.common.text import rule_grader
from stages.common.text.exact_match import matches
from stages.common.text.units import units

Grader = Literal["exact", "contains", "number", "boxed", "choice", "judge"]

SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "万": 10**4, "亿": 10**8}
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])(?P<sign>-(?=[$€£¥]?\.?\d))?[$€£¥]?"
    r"(?P<value>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?P<power>e[+-]?\d{1,3}(?!\d))?"
    r"(?:\s?/\s?(?P<below>\d+))?(?:\s?(?P<scale>thousand|million|billion|万|亿))?",
    re.IGNORECASE,
)
LONGEST_NUMBER = 1_000
ANSWER = re.compile(
    r"\banswer\b[^\n.!?。\d]{0,40}?(?:\bis\b|[:=：])|答案[^\n。！？\d]{0,12}?(?:是|为|[:：=])|####", re.IGNORECASE
)
CHOOSES = re.compile(r"\b(?:choose|pick|select)\b|选择?(?!项)", re.IGNORECASE)
SENTENCE_END = re.compile(r"[\n。！？]|[.!?](?=\s|$)")
SUM = re.compile(r"^[*$\s]*(?:[ $(]*\d[\d.,]*\s*[-+*/×÷])+[ $(]*\d[\d.,]*[ )]*=")
BOX = re.compile(r"\\(?:boxed|fbox)\s*")
BRACE = re.compile(r"(?<!\\)[{}]")
BOXED_WORD = re.compile(r"[^\s${}\\]+")
LETTER = re.compile(r"(?<![A-Za-z])[A-J](?![A-Za-z'’]|\.[a-z])")
FIRST_LETTER = re.compile(r"[\W_]*([A-J])(?:\s*(?:$|[):,;、*\]\n—]|\.(?![a-z]))|(?<=[B-HJ])\s)")
SMALL_LETTER = re.compile(r"\s*\(?([a-j])(?:[.)](?![a-z])|\s*$)")
WORD = re.compile(r"\s+(?!(?:and|or|is)\b)[a-z]")
LATEX_WORDS = re.compile(r"\\(?:left|right|displaystyle|quad|[!,;: ])|\^\{?\\circ\}?|[$\s~]")
LATEX_UNIT = re.compile(r"(?<=\S)\s*\\(?:text|mathrm)\s*\{\s+[^{}]*\}\s*$")
LATEX_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


def right(grader: Grader, answer: str, reference: str) -> bool:
    """Return whether the answer is right by a grader that needs no endpoint. Raises KeyError for
    `judge`.
    """
    return RULES[grader](answer, reference)


def fault(grader: Grader, reference: str) -> str:
    """Return why no answer can be right by this grader, or "" when one can."""
    if grader == "number" and number(reference) is None:
        return "has no number"
    if grader == "choice" and choice(reference) is None:
        return "is not the letter of a choice, A to J"
    return ""


def contains(answer: str, reference: str) -> bool:
    """Whether the words of the reference stand together in the answer; a number there counts as a
    whole number.
    """
    value = _only_number(reference)
    if value is not None:
        return value in numbers(answer)
    return rule_grader.contains(answer, reference) if units(reference) else matches(answer, reference)


def same_number(answer: str, reference: str) -> bool:
    """Whether both give the same number: 1,000 = 1000.0 = 1e3; a unit, a currency or `%` behind it
    does not count.
    """
    said, wanted = number(answer), number(reference)
    return said is not None and said == wanted


def same_box(answer: str, reference: str) -> bool:
    r"""Whether the answer's last `\boxed{…}` holds the reference (or its box): the same number, or
    the same LaTeX.
    """
    held, wanted = box(answer), box(reference)
    if held is None:
        return False
    one, other = _latex(held), _latex(reference if wanted is None else wanted)
    value = _only_number(one)
    if value is not None and value == _only_number(other):
        return True
    words = "\\" not in one and sum(letter.isalpha() for letter in one) > 1
    return one == other or (words and one.casefold() == other.casefold())


def same_choice(answer: str, reference: str) -> bool:
    """Whether both name the same letter."""
    said = choice(answer)
    return said is not None and said == choice(reference)


def number(text: str) -> Fraction | None:
    """Return the number that a text ends with as its answer, or None when it has none."""
    boxed = box(text)
    found = numbers(boxed) if boxed is not None else []
    if not found:
        found = numbers(SUM.sub("", _after(ANSWER, text)))[:1] or numbers(text)
    return found[-1] if found else None


def numbers(text: str) -> list[Fraction]:
    """Return the numbers in a text: decimals, 1,000, 1e3, 3/4, 1.5 million, 3万; digits of any
    width.
    """
    found = (_value(match) for match in NUMBER.finditer(_plain(text)))
    return [value for value in found if value is not None]


def choice(text: str) -> str | None:
    """Return the letter A to J that a text chooses, or None where it names none or several."""
    text = unicodedata.normalize("NFKC", text)
    boxed = box(text)
    if boxed is not None:
        return choice(_latex(boxed))
    for mark in (ANSWER, CHOOSES):
        letters = _letters(_after(mark, text))
        if letters:
            return letters[0]
    if first := FIRST_LETTER.match(text) or SMALL_LETTER.match(text):
        return first.group(1).upper()
    letters = sorted(set(_letters(text)))
    return letters[0] if len(letters) == 1 else None


def box(text: str) -> str | None:
    r"""Return what the last whole `\boxed{…}` of a text holds, braces within it matched, or
    None.
    """
    ends: dict[int, int] = {}
    opened: list[int] = []
    for brace in BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened:
            ends[opened.pop()] = brace.start()
    for match in reversed(list(BOX.finditer(text))):
        start = match.end()
        if start in ends:
            return text[start + 1 : ends[start]]
        if word := BOXED_WORD.match(text, start):
            return word.group().rstrip(".,。，")
    return None


def _after(mark: re.Pattern[str], text: str) -> str:
    """Return what follows the last mark in its sentence, or ""."""
    ends = [match.end() for match in mark.finditer(text)]
    return SENTENCE_END.split(text[ends[-1] :].lstrip(), maxsplit=1)[0] if ends else ""


def _letters(text: str) -> list[str]:
    """Return the capital letters A to J that stand alone, without the article "A" and the pronoun
    "I".
    """
    found = LETTER.finditer(text)
    return [one.group() for one in found if one.group() not in "AI" or not WORD.match(text, one.end())]


def _value(match: re.Match[str]) -> Fraction | None:
    written = match["value"].replace(",", "") + (match["power"] or "")
    below = match["below"] or "1"
    if len(written) > LONGEST_NUMBER or len(below) > LONGEST_NUMBER or not int(below):
        return None
    value = Fraction(written) / int(below) * SCALES.get((match["scale"] or "").casefold(), 1)
    return -value if match["sign"] else value


def _only_number(text: str) -> Fraction | None:
    """Return the number that a text is, with no word beside it, or None."""
    text = _plain(text).strip().rstrip(".。%").strip()
    match = NUMBER.fullmatch(text)
    return _value(match) if match else None


def _plain(text: str) -> str:
    r"""Return a text with narrow digits and signs; LaTeX's `{,}` and `\,` between digits are no
    separators.
    """
    narrow = "".join(one if _stays(one) else unicodedata.normalize("NFKC", one) for one in text)
    for written, meant in (("\u2212", "-"), ("{,}", ","), ("\\,", ""), ("\\!", ""), ("\\$", "$"), ("\\%", "%")):
        narrow = narrow.replace(written, meant)
    return narrow


def _stays(character: str) -> bool:
    """Whether a character must not be narrowed: 10² is not 102, and a Chinese comma separates no
    thousands.
    """
    return character == "，" or unicodedata.category(character) == "No"


def _latex(text: str) -> str:
    """Return LaTeX as compared: no spaces, sizes, units or text commands, one kind of fraction, no
    `x =`.
    """
    text = LATEX_TEXT.sub(r"\1", LATEX_UNIT.sub("", text)).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = LATEX_WORDS.sub("", text.replace("{,}", ",").replace("\\%", "%")).rstrip(".。")
    name, equals, value = text.partition("=")
    return value if equals and len(name) == 1 and "=" not in value else text


RULES: dict[Grader, Callable[[str, str], bool]] = {
    "exact": matches,
    "contains": contains,
    "number": same_number,
    "boxed": same_box,
    "choice": same_choice,
}
