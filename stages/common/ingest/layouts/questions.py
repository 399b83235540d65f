"""What is asked and not answered: prompts for training by reward, and test questions with their
reference, with or without choices.
"""

from typing import Any

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Fields, Malformed, first, optional_string, peek, string
from stages.common.ingest.layouts.pairs import ASKED, conversation_before
from stages.common.ingest.layouts.turns import turns, with_system

LETTERS = "ABCDEFGHIJ"
CHOICE_ANSWERS = ("answer", "answerKey", "answer_idx", "answer_index", "label", "reference")
CATEGORIES = ("category", "subject", "topic")
GROUP = "choices"
"""The group of questions with choices that name none."""


def text_prompt(row: Record) -> Record:
    """A question without an answer, with `reference` and `category` if it has them -> prompt."""
    reference, category = optional_string(row, "reference"), optional_string(row, "category")
    said = conversation_before(row, first(row, ASKED) or "prompt")
    return {"messages": said, "reference": reference, "category": category}


def text_question(row: Record) -> Record:
    """A question with a group and its reference under `reference` or `answer` -> test question."""
    key = "answer" if peek(row, "reference") is None and "answer" in row else "reference"
    record = {"messages": conversation_before(row, first(row, ASKED) or "question"), "reference": string(row, key)}
    return record | {"group": string(row, "group"), "category": optional_string(row, "category")}


def prompt(row: Record) -> Record:
    """Messages that end with the user, with a reference or a category -> prompt."""
    reference, category = optional_string(row, "reference"), optional_string(row, "category")
    return {"messages": turns(row["messages"]), "reference": reference, "category": category}


def question(row: Record) -> Record:
    """Messages with a reference and a group -> test question."""
    record = {"messages": turns(row["messages"]), "category": optional_string(row, "category")}
    return record | {"reference": string(row, "reference"), "group": string(row, "group")}


def asked_turns(row: Record) -> Record:
    """MT-bench's `{"turns": [str, …], "reference"?: [str, …], "category"?}`: the first turn ->
    prompt.

    What is asked next depends on an answer that is not there yet.
    """
    asked, reference = row["turns"], row.get("reference")
    if not all(isinstance(text, str) for text in asked):
        raise Malformed("bad turn", "the turns are not a list of texts")
    if isinstance(row, Fields) and asked[1:]:
        row.lost.append(("turns[1:]", asked[1:]))
    if isinstance(reference, list):
        reference = reference[0] if reference and isinstance(reference[0], str) else None
    if reference is not None and not isinstance(reference, str):
        raise Malformed("bad reference", "not text")
    said = with_system(row, [message("user", asked[0])])
    return {"messages": said, "reference": reference, "category": optional_string(row, "category")}


def has_choices(row: Record) -> bool:
    """Whether a row asks and gives answers to choose from, and says which is right."""
    lettered = isinstance(row.get("A"), str) and isinstance(row.get("B"), str)
    listed = isinstance(row.get("choices"), (list, dict))
    return bool(row.get("question")) and (lettered or listed) and any(key in row for key in CHOICE_ANSWERS)


def choices(row: Record) -> Record:
    """`{"question", "A", "B", …, "answer"}` (C-Eval, CMMLU) or `{"question", "choices", "answer"}`
    (MMLU, ARC) -> test question; the reference is the letter.
    """
    names, texts = _choices(row)
    if len(texts) < 2 or len(texts) > len(LETTERS) or not all(isinstance(text, str) and text for text in texts):
        raise Malformed("bad choices", "two to ten texts are wanted")
    lines = [string(row, "question"), *(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))]
    category = first(row, CATEGORIES)
    return {
        "messages": with_system(row, [message("user", "\n".join(lines))]),
        "reference": _right(row, names, texts),
        "group": string(row, "group") if peek(row, "group") is not None else GROUP,
        "category": string(row, category) if category else None,
    }


def _choices(row: Record) -> tuple[list[Any], list[Any]]:
    """Return what the choices are called in the row, and their texts."""
    given = row.get("choices")
    if isinstance(given, Fields):
        names, texts = given.get("label"), given.get("text")
        if not isinstance(names, list) or not isinstance(texts, list) or len(names) != len(texts):
            raise Malformed("bad choices", "an object, and not of texts and their labels")
        return names, texts
    if isinstance(given, list):
        return list(range(len(given))), given
    names = [letter for letter in LETTERS if peek(row, letter) is not None]
    return list(names), [row[letter] for letter in names]


def _right(row: Record, names: list[Any], texts: list[Any]) -> str:
    """Return the letter of the right choice: named by letter, label, place or text. Raises
    Malformed.
    """
    key = first(row, CHOICE_ANSWERS) or "answer"
    given = row.get(key)
    stripped = given.strip() if isinstance(given, str) else given
    options: tuple[list[Any], ...] = (names, list(LETTERS[: len(texts)]), texts)
    for known in options:
        if type(stripped) is not bool and stripped in known:
            return LETTERS[known.index(stripped)]
    if isinstance(stripped, str) and stripped.isdecimal() and int(stripped) in names:
        return LETTERS[int(stripped)]
    raise Malformed(f"bad {key}", f"{given!r} is none of the {len(texts)} choices"[:200])
