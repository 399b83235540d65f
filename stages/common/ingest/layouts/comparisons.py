"""Answers to one prompt, better and worse: HH-RLHF, DPO in its several layouts, and ranked or
scored lists.
"""

import math
from typing import Any

from stages.common.core.records import Record
from stages.common.ingest.layouts import transcripts
from stages.common.ingest.layouts.fields import Malformed, first, optional_string, optional_strings, string
from stages.common.ingest.layouts.pairs import ASKED, conversation_before
from stages.common.ingest.layouts.turns import SHAREGPT_KEYS, tools, turns, with_system

PREFERENCES = (("chosen", "rejected"), ("response_chosen", "response_rejected"))
TURN_TEXTS = ("value", "content")


def preference_keys(row: Record) -> tuple[str, str] | None:
    """Return the keys of the better and the worse answer, or None; one of them may be null, which
    is then a fault.
    """
    for keys in PREFERENCES:
        if row.get(keys[0]) is not None or row.get(keys[1]) is not None:
            return keys
    return None


def preference(row: Record) -> Record:
    """`{"prompt" | "question" | "conversations" | "messages", "chosen", "rejected", "system"?}` ->
    comparison.

    An answer is a text, a turn, or a list of messages that ends with it and may repeat the prompt
    or replace it.
    """
    keys = preference_keys(row) or PREFERENCES[0]
    (before, better), (before_worse, worse) = _answer(row, keys[0]), _answer(row, keys[1])
    if before != before_worse:
        raise Malformed("bad chosen", "chosen and rejected do not answer the same prompt")
    prompt = with_system(row, before) if before else _prompt(row)
    if not prompt:
        raise Malformed("bad prompt", "there is none")
    return _pair(prompt, [better, worse], tools(row))


def transcript_pair(row: Record) -> Record:
    """HH-RLHF's `{"chosen", "rejected"}`, two transcripts that differ in their last answer ->
    comparison.
    """
    keys = preference_keys(row) or PREFERENCES[0]
    better, worse = (transcripts.spoken(string(row, key)) for key in keys)
    for name, said in zip(keys, (better, worse), strict=True):
        if said[-1]["role"] != "assistant" or len(said) < 2:
            raise Malformed(f"bad {name}", "it does not end with an answer")
    if better[:-1] != worse[:-1]:
        raise Malformed("bad chosen", "the transcripts differ before the last answer")
    return _pair(with_system(row, better[:-1]), [better[-1]["content"], worse[-1]["content"]], tools(row))


def ranked(row: Record) -> Record:
    """`{"prompt": str or messages, "responses": [str], "ranks": [int] or "scores": [number]}`; rank
    1 is the best.
    """
    responses, ranks = row["responses"], row.get("ranks")
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise Malformed("bad responses", "not a list of texts")
    if ranks is None and row.get("scores") is not None:
        ranks = ranks_of(row["scores"])
    if not isinstance(ranks, list) or len(ranks) != len(responses) or len(ranks) < 2:
        raise Malformed("bad ranks", f"{len(responses)} responses need as many ranks, and at least two")
    if not all(type(rank) is int and rank <= len(ranks) for rank in ranks) or min(ranks) != 1:
        raise Malformed("bad ranks", f"ranks are whole numbers from 1 (the best) to {len(ranks)}")
    return {
        "prompt": _prompt(row),
        "responses": responses,
        "ranks": ranks,
        "annotator": optional_string(row, "annotator"),
        "categories": optional_strings(row, "categories"),
        "tools": tools(row),
    }


def ranks_of(scores: Any) -> list[int]:
    """Return scores, where more is better, as ranks from 1; equal scores share a rank. Raises
    Malformed.
    """
    if not isinstance(scores, list) or not all(type(score) in (int, float) and _finite(score) for score in scores):
        raise Malformed("bad scores", "not a list of finite numbers")
    order = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True), 1)}
    return [order[score] for score in scores]


def _finite(score: float) -> bool:
    return isinstance(score, int) or math.isfinite(score)


def _pair(prompt: list[Record], responses: list[str], listed: str | None) -> Record:
    return {"prompt": prompt, "responses": responses, "ranks": [1, 2], "tools": listed}


def _prompt(row: Record) -> list[Record]:
    """Return what is to be answered, empty where the row leaves that to its answers."""
    talk = first(row, (*SHAREGPT_KEYS, "messages"))
    if talk:
        return with_system(row, turns(row[talk]))
    asked = first(row, ASKED)
    return conversation_before(row, asked) if asked else []


def _answer(row: Record, key: str) -> tuple[list[Record], str]:
    """Return the messages before an answer, if it brings them, and its text."""
    value = row.get(key)
    if isinstance(value, dict):
        return [], string(value, first(value, TURN_TEXTS) or "value")
    if not isinstance(value, list):
        return [], string(row, key)
    *before, last = turns(value)
    if last["role"] != "assistant" or last["tool_calls"]:
        raise Malformed(f"bad {key}", "it does not end with an answer in words")
    return before, last["content"]
