"""What an answer does, whatever it says: admit not to know, keep the question's script, refuse where due."""

import re
from typing import Any

from stages.common.curate.refusal import refuses

UNSURE = re.compile(
    r"\b(?:I|we) (?:do not|don't|cannot|can't) (?:really )?(?:know|be sure|say)\b|\b(?:I am|I'm) not sure\b"
    r"|\bno idea\b|我?不(?:太|大)?(?:知道|清楚|确定)|不晓得",
    re.IGNORECASE,
)
HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


def unsure(text: str) -> bool:
    """Whether the text says that it does not know, or is not sure, in English or Chinese."""
    return bool(UNSURE.search(text.replace("\u2019", "'")))


def script(text: str) -> str:
    """Return `zh` for a text with Chinese characters, else `en`: which of the two ways to mark a question."""
    return "zh" if HAN.search(text) else "en"


def grade(row: dict[str, Any], text: str, correct: bool) -> int:
    """Return 2 for a right answer, 1 for a wrong one that behaves, 0 for one that does not.

    To behave is to say something, in the script of the question, and to refuse or to admit ignorance exactly when the
    reference does. This is the annotator `rules` of the win rate.
    """
    if correct:
        return 2
    proper = refuses(text) == refuses(row["reference"]) and unsure(text) == unsure(row["reference"])
    return int(proper and any(map(str.isalnum, text)) and script(text) == script(row["question"]))
