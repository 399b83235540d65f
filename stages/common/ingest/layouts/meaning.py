"""What stands beside the content of a row: metadata, or a word that makes it another row.

A label makes an answer a liked or a disliked one, a weight of 0 one that nobody should learn, an
image another question. Who does not take such a key in has misread the row, so it is refused.
"""

import re
from collections.abc import Iterable
from typing import Any

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed, first, peek

METADATA = frozenset(
    {
        *("id", "ids", "_id", "uid", "uuid", "idx", "index", "qid", "no", "name", "key", "hash", "md5"),
        *("question_id", "prompt_id", "conversation_id", "chat_id", "post_id", "message_id", "task_id", "custom_id"),
        *("source", "sources", "source_id", "dataset", "dataset_name", "data_source", "origin", "from_dataset"),
        *("url", "link", "title", "lang", "language", "license", "licence", "copyright", "version", "split"),
        *("created", "created_at", "created_date", "timestamp", "date", "time", "year", "author", "worker", "batch"),
        *("topic", "topics", "tag", "tags", "category", "categories", "subcategory", "domain", "subject", "task"),
        *("task_type", "task_name", "type", "kind", "cate", "department", "model", "models", "model_name", "generator"),
        *("policy", "meta", "metadata", "info", "extra", "quality", "score", "difficulty", "level", "rating", "split"),
        *("num_turns", "num_responses", "turns", "turn", "length", "tokens", "n_tokens", "num_tokens", "subreddit"),
        *("__index_level_0__", "Unnamed: 0", "unnamed: 0"),
    }
)
"""Keys that say something about a row and are no part of it. A prompt alone has no others."""
LABELS = ("label", "kto_tag", "desirable")
UNLEARNED = ("weight", "loss_weight", "train", "loss")
MEDIA = re.compile(r"(?:^|_)(image|audio|video)s?(?:_(?:url|path|file|input)s?)?$")
OTHER_ANSWER = re.compile(
    r"rejected(?:_\w+)?|(?:response|answer|output|completion|message)s?_rejected|chosen(?:_\w+)?|non_preferred_output"
    r"|(?:response|answer|completion|output|summary|reply|human_ref)_(?:\d+|[a-z])"
)
ABOUT_AN_ANSWER = re.compile(r".*_(?:score|scores|rating|avg_rating|model|policy|source|id|logps?|reward|length)")
MEDIA_NAMES = {"image": "images", "audio": "audio", "video": "video"}
THOUGHT_KEYS = ("thought", "reasoning_content", "thinking", "reasoning", "complex_cot", "chain_of_thought", "cot")
THOUGHT = re.compile(r"\A\s*<(think|thinking|thought|reasoning)>(.*?)</\1>\s*", re.DOTALL)
ALL_LABELS, ALL_UNLEARNED, ALL_THOUGHTS = frozenset(LABELS), frozenset(UNLEARNED), frozenset(THOUGHT_KEYS)
WORDS = {"true": True, "false": False, "1": True, "0": False}


def label(row: Record) -> bool | None:
    """Return what the row says of its answer, liked (true) or not, and take it; None where it says
    nothing.

    A text of a digit is a label only beside a completion: tables number other things as well.
    """
    if ALL_LABELS.isdisjoint(row):
        return None
    for key in LABELS:
        value = peek(row, key)
        if isinstance(value, str):
            word = value.strip().lower()
            digit = word in ("0", "1") and key == "label" and "completion" not in row
            value = None if digit else WORDS.get(word)
        if isinstance(value, (bool, int, float)) and value in (0, 1):
            row.get(key)
            return bool(value)
    return None


def learned(row: Record, path: str = "") -> None:
    """Take the keys that say whether an answer is learned. Raises Malformed for one that is not to
    be.
    """
    if ALL_UNLEARNED.isdisjoint(row):
        return
    for key in UNLEARNED:
        value = peek(row, key)
        if value is None:
            continue
        if _is_no(value):
            raise Malformed("not to be learned", f"{path}{key}: {value!r}")
        if value is True or value == 1:
            row.get(key)


def ignore_weight(row: Record) -> None:
    """Take what is said of learning a turn that nobody learns anyway."""
    for key in UNLEARNED if not ALL_UNLEARNED.isdisjoint(row) else ():
        row.get(key)


def thought(row: Record, number: int = 0) -> str | None:
    """Return what was thought before the answer of a row or of its turn `number`, or None. Raises
    Malformed.
    """
    key = None if ALL_THOUGHTS.isdisjoint(row) else first(row, THOUGHT_KEYS)
    value = row.get(key) if key else None
    if value is not None and not isinstance(value, str):
        raise Malformed("bad turn", f"turn {number}: the thought is not text")
    return value


def answer(text: str, thought: str | None = None) -> Record:
    """Return an answer as a message; a thought in marks before it is its thought."""
    found = THOUGHT.match(text)
    if found:
        text = text[found.end() :]
        thought = "\n".join(part for part in (thought, found[2].strip()) if part)
    return message("assistant", text, thought or None)


def answer_text(said: Record) -> str:
    """Return an answer as one text, its thought in marks before it, as templates write it."""
    thought = f"<think>{said['thought']}</think>\n" if said["thought"] else ""
    return f"{thought}{said['content']}"


def _is_no(value: Any) -> bool:
    return value in (0, "0", "0.0") or (isinstance(value, str) and value.strip().lower() == "false")


def check(untaken: Iterable[tuple[str, Any]], shape: str, taken_texts: Iterable[str]) -> list[str]:
    """Return the paths of a kept row that went nowhere, each once. Raises Malformed for one that
    changes what the row means, and for a prompt beside keys that nobody knows.

    A text that stands in the record under another name is not lost.
    """
    found: dict[str, None] = {}
    texts: frozenset[str] | None = None
    for path, value in untaken:
        key = path.rpartition(".")[2].lower()
        medium = MEDIA.search(key)
        if medium:
            raise Malformed(f"refers to {MEDIA_NAMES[medium[1]]}", path)
        if isinstance(value, str):
            texts = frozenset(taken_texts) if texts is None else texts
            if value.strip() in texts:
                continue
        if shape not in ("comparisons", "documents") and _is_another_answer(key, value):
            raise Malformed("another answer beside it", path)
        if shape == "prompts" and "." not in path and "[" not in path and key not in METADATA:
            raise Malformed("unknown format", f"a prompt beside unknown keys: {path}")
        found[path] = None
    return list(found)


def _is_another_answer(key: str, value: Any) -> bool:
    holds_text = isinstance(value, (str, list, dict))
    return holds_text and bool(OTHER_ANSWER.fullmatch(key)) and not ABOUT_AN_ANSWER.fullmatch(key)
