"""What an answer does, whatever it says: admit not to know; and the script a question is in."""

import re

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
    """Return `zh` for a text with Chinese characters, else `en`: which of the two ways to mark a
    question.
    """
    return "zh" if HAN.search(text) else "en"
