"""Answers to one prompt, better and worse: HH-RLHF, DPO in its several layouts, and ranked or
scored lists.
"""

import math
from typing import Any

from stages.common.core.records import Record
from stages.common.ingest.layouts import transcripts
from stages.common.ingest.layouts.fields import Malformed, first, optional_string, optional_strings, peek, string
from stages.common.ingest.layouts.meaning import answer_text
from stages.common.ingest.layouts.pairs import ASKED, conversation_before, keys_of
from stages.common.ingest.layouts.turns import SHAREGPT_KEYS, tools, turns, with_system

PREFERENCES = (
    *(("chosen", "rejected"), ("response_chosen", "response_rejected")),
    *(("chosen_messages", "rejected_messages"), ("response_j", "response_k")),
)
REJECTED = ("rejected_response", "rejected_messages")
TURN_TEXTS = ("value", "content")


def preference_keys(row: Record) -> tuple[str, str] | None:
    """Return the keys of the better and the worse answer, or None; one of them may be null, which
    is then a fault.
    """
    for keys in PREFERENCES:
        if peek(row, keys[0]) is not None or peek(row, keys[1]) is not None:
            return keys
    return None


def preference(row: Record) -> Record:
    """`{"prompt" | "question" | "conversations" | "messages", "chosen", "rejected", "system"?}` ->
    comparison.

    An answer is a text, a turn, a list of messages that ends with it and may repeat the prompt or
    replace it, or a list of texts that are all better, or all worse.
    """
    keys = preference_keys(row) or PREFERENCES[0]
    (before, better), (before_worse, worse) = _answers(row, keys[0]), _answers(row, keys[1])
    if before != before_worse:
        raise Malformed("bad chosen", "chosen and rejected do not answer the same prompt")
    prompt = with_system(row, before) if before else _prompt(row)
    return _two_sides(prompt, better, worse, tools(row))


def against(row: Record) -> Record:
    """ms-swift's `{"messages" | "query", "response", …}` with `rejected_response` or
    `rejected_messages` -> comparison.
    """
    if peek(row, "messages") is not None:
        before, better = _answers(row, "messages")
        prompt = with_system(row, before)
    else:
        asked, answered = keys_of(row)
        prompt, better = conversation_before(row, asked), [string(row, answered)]
    repeated, worse = _answers(row, first(row, REJECTED) or REJECTED[0])
    if repeated and repeated not in (prompt, prompt[1:]):
        raise Malformed("bad rejected_messages", "they do not answer the same prompt")
    return _two_sides(prompt, better, worse, tools(row))


def preferred(row: Record) -> Record:
    """OpenAI's `{"input": {"messages", "tools"?}, "preferred_output", "non_preferred_output"}` ->
    comparison.
    """
    asked = row.get("input")
    if not isinstance(asked, dict) or peek(asked, "messages") is None:
        raise Malformed("bad input", "no object with messages")
    better, worse = _answers(row, "preferred_output")[1], _answers(row, "non_preferred_output")[1]
    return _two_sides(turns(asked["messages"]), better, worse, tools(asked))


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
    texts = [better[-1]["content"], worse[-1]["content"]]
    return comparison(with_system(row, better[:-1]), texts, [1, 2], tools(row))


def ranked(row: Record) -> Record:
    """`{"prompt": str or messages, "responses": [str], "ranks": [int] or "scores": [number]}`; rank
    1 is the best.
    """
    responses, ranks = row["responses"], row.get("ranks")
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise Malformed("bad responses", "not a list of texts")
    if ranks is None and peek(row, "scores") is not None:
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


def comparison(prompt: list[Record], responses: list[str], ranks: list[int], listed: str | None) -> Record:
    """Return a comparison. Raises Malformed where there is nothing to answer."""
    if not prompt:
        raise Malformed("bad prompt", "there is none")
    return {"prompt": prompt, "responses": responses, "ranks": ranks, "tools": listed}


def _two_sides(prompt: list[Record], better: list[str], worse: list[str], listed: str | None) -> Record:
    return comparison(prompt, better + worse, [1] * len(better) + [2] * len(worse), listed)


def _prompt(row: Record) -> list[Record]:
    """Return what is to be answered, empty where the row leaves that to its answers."""
    talk = first(row, (*SHAREGPT_KEYS, "messages"))
    if talk:
        return with_system(row, turns(row[talk]))
    asked = first(row, ASKED)
    return conversation_before(row, asked) if asked else []


def _answers(row: Record, key: str) -> tuple[list[Record], list[str]]:
    """Return the messages before an answer, if it brings them, and its text; or several texts."""
    value = row.get(key)
    if isinstance(value, dict):
        for name in ("from", "role"):
            value.get(name)
        return [], [string(value, first(value, TURN_TEXTS) or "value")]
    if not isinstance(value, list):
        return [], [string(row, key)]
    if value and all(isinstance(text, str) for text in value):
        return [], list(value)
    *before, last = turns(value)
    if last["role"] != "assistant" or last["tool_calls"]:
        raise Malformed(f"bad {key}", "it does not end with an answer in words")
    return before, [answer_text(last)]
