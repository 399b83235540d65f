"""Several answers to one prompt, each with a rank, a score or a vote beside it: Nectar,
UltraFeedback, SafeRLHF, SHP, WebGPT, summarize-from-feedback.
"""

from typing import Any

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.comparisons import comparison, ranks_of
from stages.common.ingest.layouts.fields import Malformed, first, peek, string
from stages.common.ingest.layouts.pairs import ASKED, conversation_before
from stages.common.ingest.layouts.turns import tools, with_system

LISTS = ("answers", "completions", "responses", "choices")
TEXTS = ("answer", "response", "text", "content", "completion", "output")
SCORES = ("score", "fine-grained_score", "overall_score", "pm_score", "rating")


def is_list_of_answers(value: Any) -> bool:
    """Whether a value is a list of objects that hold texts."""
    objects = isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
    return objects and all(any(isinstance(one.get(key), str) for key in TEXTS) for one in value)


def scored(row: Record) -> Record:
    """`{"prompt" | "instruction" | …, "answers" | "completions" | "responses": [{"answer" | …,
    "rank" | "score" | …}, …]}` -> comparison.
    """
    key = next(key for key in LISTS if isinstance(peek(row, key), list))
    given = row[key]
    if not all(isinstance(one, dict) for one in given) or len(given) < 2:
        raise Malformed(f"bad {key}", f"{len(given)} answers; a comparison needs two")
    texts = [_text(one) for one in given]
    scores = [-one["rank"] if _is_number(peek(one, "rank")) else _score(one) for one in given]
    return comparison(conversation_before(row, first(row, ASKED) or "prompt"), texts, ranks_of(scores), tools(row))


def numbered(row: Record) -> Record:
    """SafeRLHF's `{"prompt", "response_0", "response_1", "better_response_id"}` -> comparison.

    The better answer is the more helpful one; which is safer is another question.
    """
    better = row["better_response_id"]
    if better not in (0, 1, "0", "1"):
        raise Malformed("bad better_response_id", f"{better!r} is neither 0 nor 1"[:200])
    texts = [string(row, "response_0"), string(row, "response_1")]
    ranks = [1, 2] if int(better) == 0 else [2, 1]
    return comparison(conversation_before(row, first(row, ASKED) or "prompt"), texts, ranks, tools(row))


def voted(row: Record) -> Record:
    """SHP's `{"history", "human_ref_A", "human_ref_B", "labels"}` (1: the first is better) ->
    comparison.
    """
    better = row["labels"]
    if better not in (0, 1, "0", "1"):
        raise Malformed("bad labels", f"{better!r} is neither 0 nor 1"[:200])
    texts = [string(row, "human_ref_A"), string(row, "human_ref_B")]
    for key in ("score_A", "score_B"):  # the votes that the label stands for
        row.get(key)
    return comparison([message("user", string(row, "history"))], texts, [1, 2] if int(better) else [2, 1], None)


def compared(row: Record) -> Record:
    """WebGPT's `{"question": {"full_text"}, "answer_0", "answer_1", "score_0", "score_1"}` ->
    comparison.
    """
    asked = row["question"]
    question = string(asked, "full_text") if isinstance(asked, dict) else string(row, "question")
    texts = [string(row, "answer_0"), string(row, "answer_1")]
    ranks = ranks_of([row.get("score_0"), row.get("score_1")])
    return comparison(with_system(row, [message("user", question)]), texts, ranks, None)


def summaries(row: Record) -> Record:
    """summarize-from-feedback's `{"info": {"post", "title", "subreddit"}, "summaries": [{"text"},
    …], "choice"}` -> comparison; the prompt is laid out as its authors did.
    """
    info, listed, choice = row["info"], row["summaries"], row["choice"]
    if not isinstance(info, dict) or not isinstance(listed, list) or not is_list_of_answers(listed):
        raise Malformed("bad summaries", "info is no object, or summaries no list of texts")
    if type(choice) is not int or not 0 <= choice < len(listed) or len(listed) < 2:
        raise Malformed("bad choice", f"{choice!r} is none of {len(listed)} summaries"[:200])
    heads = (("SUBREDDIT: r/", "subreddit"), ("TITLE: ", "title"), ("POST: ", "post"), ("ARTICLE: ", "article"))
    lines = [f"{head}{string(info, key)}" for head, key in heads if peek(info, key) is not None]
    if not any(peek(info, key) for key in ("post", "article")):
        raise Malformed("bad info", "neither a post nor an article")
    texts = [string(one, "text").strip() for one in listed]
    ranks = [1 if at == choice else 2 for at in range(len(texts))]
    return comparison([message("user", "\n".join([*lines, "TL;DR:"]))], texts, ranks, None)


def _text(one: Record) -> str:
    key = first(one, TEXTS)
    return string(one, key or "text")


def _score(one: Record) -> float:
    """Return the score of an answer; where it has none, the mean of UltraFeedback's ratings."""
    for key in SCORES:
        if _is_number(peek(one, key)):
            return float(one[key])
    notes = one.get("annotations")
    parts = [notes[aspect] for aspect in notes] if isinstance(notes, dict) else []
    rated = [part.get("Rating") for part in parts if isinstance(part, dict)]
    numbers = [float(rating) for rating in rated if isinstance(rating, str) and rating.isdecimal()]
    if not numbers:
        raise Malformed("bad ranks", "an answer without rank or score")
    return sum(numbers) / len(numbers)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
